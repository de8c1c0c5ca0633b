"""Batches for training: endless, the same for a seed whatever the workers, resumable anywhere.

Item `i` of a run is a function of (seed, i) alone and batch `n` holds items `n * batch` onwards,
or those that a schedule of buckets gives it; process p of P makes the p-th of P equal runs of its
rows. So the whole state of an iterator is the number of batches given, and it may go on with other
workers or, for the same global batch, with other processes.
"""

import atexit
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

import absl.flags
import grain
import jax
import numpy as np

from sam_audio_jax.config import to_dict
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.examples import CachedExamples, MixedExamples
from sam_audio_jax.data.excerpts import ExcerptConfig, Excerpts
from sam_audio_jax.data.length_buckets import Bucket, Schedule
from sam_audio_jax.data.mix import Mixer
from sam_audio_jax.data.source import load_manifests, load_songs
from sam_audio_jax.data.waves import open_waves
from sam_audio_jax.errors import UserError

__all__ = ["Batches", "DataConfig", "ExcerptConfig", "codec_excerpts", "separation_batches"]

Batch = dict[str, np.ndarray]


@runtime_checkable
class Items(Protocol):
    """Random access to single examples; picklable, for worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...


@runtime_checkable
class FittingItems(Items, Protocol):
    """Items that can also be had at a length of a bucket, which a schedule needs."""

    def fit(self, index: int, bucket: Bucket) -> Batch: ...


@dataclasses.dataclass(frozen=True)
class _Rows:
    """`rows` items of every `batch`, from the `first` on."""

    items: Items
    batch: int
    first: int
    rows: int

    def __len__(self) -> int:
        return len(self.items) // self.batch * self.rows

    def __getitem__(self, index: int) -> Batch:
        number, row = divmod(index, self.rows)
        return self.items[number * self.batch + self.first + row]


class Batches(Iterator[Batch]):
    """Grain's iterator over `items` in batches, with a state of one number.

    `batch` is the number of items of every batch, each with `frames`, or the schedule that says for
    every step what it has; both count the items of all processes, which share them evenly.
    """

    def __init__(
        self,
        items: Items,
        batch: int | Schedule,
        *,
        frames: int = 0,
        workers: int = 0,
        process_index: int | None = None,
        process_count: int | None = None,
    ):
        self.items, self.batch, self.workers = items, batch, workers
        self.process_index = jax.process_index() if process_index is None else process_index
        self.process_count = jax.process_count() if process_count is None else process_count
        rows, said = (batch, "batch") if isinstance(batch, int) else (batch.row_multiple, "rows")
        if rows < 1 or rows % self.process_count:
            raise UserError(
                f"{said} {rows} must be a positive multiple of the {self.process_count} processes"
            )
        self._item_frames = frames
        self._given = 0
        self._iterator: Iterator[Batch] | None = None
        atexit.register(
            _close, weakref.ref(self)
        )  # Grain's own clean-up comes too late to be quiet

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        value = next(self._iterator)
        if self.workers:  # lets go of the memory shared with the worker
            value = {name: np.array(rows) for name, rows in value.items()}
        self._given += 1
        return value

    @property
    def frames(self) -> int:
        """Frames of the batch given last, of all processes, with padding; 0 before the first."""
        if not self._given:
            return 0
        if isinstance(self.batch, int):
            return self.batch * self._item_frames
        bucket = self.batch.bucket(self._given - 1)
        return bucket.rows * bucket.frames

    def close(self) -> None:
        """Ends worker processes; the next batch starts new ones."""
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()

    def _start(self) -> Iterator[Batch]:
        threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        stream = self._dataset().to_iter_dataset(threads)
        if self.workers:
            if not absl.flags.FLAGS.is_parsed():  # Grain's workers read flags that nobody parsed
                absl.flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2)
            )
        return iter(stream)

    def _dataset(self) -> grain.MapDataset:
        """This process's rows of every batch that is still to be given."""
        if isinstance(self.batch, Schedule):
            items = cast(FittingItems, self.items)
            rows = _BucketRows(items, self.batch, self.process_index, self.process_count)
            return grain.MapDataset.source(rows)[self._given :]
        rows = self.batch // self.process_count
        mine = _Rows(self.items, self.batch, self.process_index * rows, rows)
        dataset = grain.MapDataset.source(mine)[self._given * rows :]
        return dataset.batch(rows, drop_remainder=True)

    def get_state(self) -> dict[str, int]:
        """What a checkpoint keeps: batches given so far."""
        return {"batches": self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on after the batches that `state` says were given."""
        self.close()
        self._given = int(state["batches"])


class _BucketRows:
    """Random access to one process's rows of every step of a schedule."""

    def __init__(
        self, items: FittingItems, schedule: Schedule, process_index: int, process_count: int
    ):
        self.items, self.schedule = items, schedule
        self.process_index, self.process_count = process_index, process_count

    def __len__(self) -> int:
        return 2**32

    def __getitem__(self, index: int) -> Batch:
        bucket, first = self.schedule.bucket(index), self.schedule.first(index)
        rows = bucket.rows // self.process_count
        first += self.process_index * rows
        examples = [self.items.fit(number, bucket) for number in range(first, first + rows)]
        return {name: np.stack([one[name] for one in examples]) for name in examples[0]}


def _close(reference: weakref.ref[Batches]) -> None:
    batches = reference()
    if batches is not None:
        batches.close()


def codec_excerpts(
    config: ExcerptConfig,
    sample_rate: int,
    hop: int,
    batch: int,
    *,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Batches {"wave": float32 [rows, samples]}; samples: `seconds` rounded to whole hops."""
    recordings = load_manifests(config.source.manifests, config.source.split)
    waves = open_waves(recordings, sample_rate)
    samples = max(1, round(config.seconds * sample_rate / hop)) * hop
    items = Excerpts(config, recordings, waves, sample_rate, samples)
    return Batches(
        items,
        batch,
        frames=samples // hop,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )


def mixer(config: DataConfig, sample_rate: int, hop: int) -> Mixer:
    """The mixer over a config's manifests; mixtures last `seconds`, rounded to whole frames."""
    recordings = load_manifests(config.source.manifests, config.source.split)
    songs = load_songs(config.source.manifests, config.source.split)
    waves = open_waves(recordings, sample_rate)
    samples = frame_count(config, sample_rate, hop) * hop
    return Mixer(config.mix, recordings, songs, waves, sample_rate, samples)


def recipe(config: DataConfig) -> dict[str, Any]:
    """The part of a config that a latent cache depends on: what decides the sound of a mixture."""
    return {
        "source": to_dict(config.source),
        "mix": to_dict(config.mix),
        "seed": config.seed,
    }


def frame_count(config: DataConfig, sample_rate: int, hop: int) -> int:
    """Codec frames of an example."""
    return max(1, round(config.mix.seconds * sample_rate / hop))


def separation_batches(
    config: DataConfig,
    sample_rate: int,
    hop: int,
    batch: int,
    *,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Batches for the separator at a codec's rate; keys and shapes in `data/examples.py`.

    With `config.cache` the signals are latents from there, else waves mixed on the fly. Every batch
    has `batch` items, unless `config.batches.token_budget` says how many there are. Raises
    `UserError` for buckets that the budget or the records of the cache are too small for.
    """
    frames = frame_count(config, sample_rate, hop)
    schedule = None
    if config.batches.token_budget:
        schedule = Schedule(config.batches, config.seed, sample_rate / hop)
    if config.cache:
        items = CachedExamples(config, sample_rate, hop, frames)
        held = items.cache.index["samples"] // hop
        if schedule and held < schedule.buckets[-1].shortest:
            length = held * hop / sample_rate
            raise UserError(
                f"data.batches.buckets_s={config.batches.buckets_s}: the records of "
                f"{config.cache} are too short for the last, they have {length:g} s"
            )
    else:
        items = MixedExamples(config, mixer(config, sample_rate, hop), sample_rate, hop)
    return Batches(
        items,
        schedule or batch,
        frames=frames,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )
