"""Batches for training: endless, the same for a seed whatever the workers, resumable anywhere.

Item `i` of a run is a function of (seed, i) alone and batch `n` holds items `n * batch` onwards;
process p of P makes the p-th of P equal runs of its rows. So the whole state of an iterator is the
number of batches given, and it may go on with other workers or with other processes.
"""

import atexit
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import absl.flags
import grain
import jax
import numpy as np

from sam_audio_jax.data.config import MIXING, DataConfig
from sam_audio_jax.data.examples import CachedExamples, MixedExamples
from sam_audio_jax.data.excerpts import ExcerptConfig, Excerpts
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

    `batch` counts the items of all processes; each process gets `batch / process_count` rows.
    """

    def __init__(
        self,
        items: Items,
        batch: int,
        *,
        workers: int = 0,
        process_index: int | None = None,
        process_count: int | None = None,
    ):
        self.items, self.batch, self.workers = items, batch, workers
        self.process_index = jax.process_index() if process_index is None else process_index
        self.process_count = jax.process_count() if process_count is None else process_count
        if batch < 1 or batch % self.process_count:
            raise UserError(
                f"batch {batch} must be a positive multiple of the {self.process_count} processes"
            )
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

    def close(self) -> None:
        """Ends worker processes; the next batch starts new ones."""
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()

    def _start(self) -> Iterator[Batch]:
        rows = self.batch // self.process_count
        mine = _Rows(self.items, self.batch, self.process_index * rows, rows)
        dataset = grain.MapDataset.source(mine)[self._given * rows :]
        dataset = dataset.batch(rows, drop_remainder=True)
        threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        stream = dataset.to_iter_dataset(threads)
        if self.workers:
            if not absl.flags.FLAGS.is_parsed():  # Grain's workers read flags that nobody parsed
                absl.flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2)
            )
        return iter(stream)

    def get_state(self) -> dict[str, int]:
        """What a checkpoint keeps: batches given so far."""
        return {"batches": self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on after the batches that `state` says were given."""
        self.close()
        self._given = int(state["batches"])


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
    recordings = load_manifests(config.manifests, config.split)
    waves = open_waves(recordings, sample_rate)
    samples = max(1, round(config.seconds * sample_rate / hop)) * hop
    items = Excerpts(config, recordings, waves, sample_rate, samples)
    return Batches(
        items,
        batch,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )


def mixer(config: DataConfig, sample_rate: int, hop: int) -> Mixer:
    """The mixer over a config's manifests; mixtures last `seconds`, rounded to whole frames."""
    recordings = load_manifests(config.manifests, config.split)
    songs = load_songs(config.manifests, config.split)
    waves = open_waves(recordings, sample_rate)
    samples = frame_count(config, sample_rate, hop) * hop
    return Mixer(config, recordings, songs, waves, sample_rate, samples)


def recipe(config: DataConfig) -> dict[str, Any]:
    """The part of a config that a latent cache depends on."""
    return {name: getattr(config, name) for name in MIXING}


def frame_count(config: DataConfig, sample_rate: int, hop: int) -> int:
    """Codec frames of an example."""
    return max(1, round(config.seconds * sample_rate / hop))


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

    With `config.cache` the signals are latents from there, else waves mixed on the fly.
    """
    if config.cache:
        items = CachedExamples(config, sample_rate, hop, frame_count(config, sample_rate, hop))
    else:
        items = MixedExamples(config, mixer(config, sample_rate, hop), sample_rate, hop)
    return Batches(
        items,
        batch,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )
