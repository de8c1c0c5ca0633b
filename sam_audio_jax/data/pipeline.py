"""Batches for training: endless, the same for a seed whatever the workers, resumable anywhere.

Item `i` of a run is a function of (seed, i) alone, and batch `n` holds items `n * batch` onwards or
those that a schedule of buckets assigns to it; process p of P makes the p-th of P equal runs of its
rows. So the whole state of an iterator is the number of batches that it has returned, and it may go
on with other workers or, for the same global batch, with other processes.
"""

import atexit
import dataclasses
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

import absl.flags
import grain
import jax
import numpy as np

from sam_audio_jax.config import to_dict
from sam_audio_jax.data.blended_examples import blended_examples
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.examples import CachedExamples, MixedExamples
from sam_audio_jax.data.excerpts import ExcerptConfig, Excerpts
from sam_audio_jax.data.labelled_examples import LabelledExamples
from sam_audio_jax.data.length_buckets import Bucket, Schedule
from sam_audio_jax.data.library import open_library
from sam_audio_jax.data.mix import Mixer
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.data.video_tracks import VideoTracks, open_video_tracks
from sam_audio_jax.errors import UserError

__all__ = ["BatchStream", "DataConfig", "ExcerptConfig", "codec_excerpts", "separation_batches"]

_Batch = dict[str, np.ndarray]


@runtime_checkable
class Items(Protocol):
    """Random access to single examples; picklable, for worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> _Batch: ...


@runtime_checkable
class BucketItems(Items, Protocol):
    """Items that a schedule can also have at a length of a bucket."""

    def in_bucket(self, index: int, bucket: Bucket) -> _Batch: ...


class BatchStream(Iterator[_Batch]):
    """Grain's iterator over `items` in batches, with a state of one number.

    `batch` is the number of items of every batch, each with `frames`, or the schedule that assigns
    items and a length to every step; both count the items of all processes, which share them
    evenly. `workers` processes make the items; with 0 a thread of this one does.
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
        """Raises `UserError` for rows that the processes cannot share evenly."""
        self.items, self.batch, self.workers = items, batch, workers
        self.process_index = jax.process_index() if process_index is None else process_index
        self.process_count = jax.process_count() if process_count is None else process_count
        name, rows = ("batch", batch) if isinstance(batch, int) else ("rows", batch.row_multiple)
        if rows < 1 or rows % self.process_count:
            raise UserError(
                f"{name} {rows} must be a positive multiple of the {self.process_count} processes"
            )
        self._item_frames = frames
        self._returned = 0
        self._iterator: Iterator[_Batch] | None = None
        # Grain's own clean-up comes so late that it writes errors.
        atexit.register(_close, weakref.ref(self))

    def __iter__(self) -> "BatchStream":
        return self

    def __next__(self) -> _Batch:
        if self._iterator is None:
            self._iterator = self._start()
        value = next(self._iterator)
        if self.workers:  # copies release the memory shared with the worker
            value = {name: np.array(rows) for name, rows in value.items()}
        self._returned += 1
        return value

    @property
    def frames(self) -> int:
        """Frames of the last batch, of all processes, with padding; 0 before the first batch."""
        if not self._returned:
            return 0
        if isinstance(self.batch, int):
            return self.batch * self._item_frames
        bucket = self.batch.bucket(self._returned - 1)
        return bucket.rows * bucket.frames

    def close(self) -> None:
        """Ends the worker processes; the next batch starts new ones."""
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()

    def _start(self) -> Iterator[_Batch]:
        threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        stream = self._dataset().to_iter_dataset(threads)
        if self.workers:
            if not absl.flags.FLAGS.is_parsed():  # Grain's workers read flags, which must be parsed
                absl.flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=2),
                worker_init_fn=_end_with_parent,
            )
        return iter(stream)

    def _dataset(self) -> grain.MapDataset:
        """This process's rows of every batch to come."""
        batches = _Batches(self.items, self.batch, self.process_index, self.process_count)
        return grain.MapDataset.source(batches)[self._returned :]

    def get_state(self) -> dict[str, int]:
        """What a checkpoint keeps: the number of batches returned so far."""
        return {"batches": self._returned}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on after the batches that `state` counts."""
        self.close()
        self._returned = int(state["batches"])


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Random access to one process's rows of every batch."""

    items: Items
    batch: int | Schedule
    process_index: int
    process_count: int

    def __len__(self) -> int:
        return len(self.items) // self.batch if isinstance(self.batch, int) else 2**32

    def __getitem__(self, index: int) -> _Batch:
        if isinstance(self.batch, int):
            of_all, first, get = self.batch, index * self.batch, self.items.__getitem__
        else:
            bucket, first = self.batch.bucket(index), self.batch.first(index)
            items = cast(BucketItems, self.items)
            of_all, get = bucket.rows, functools.partial(items.in_bucket, bucket=bucket)
        rows = of_all // self.process_count
        first += self.process_index * rows
        return _stacked((get(number) for number in range(first, first + rows)), rows)


def _stacked(examples: Iterator[_Batch], rows: int) -> _Batch:
    """The examples as arrays with an axis more, each copied before the next one is made.

    So an example is copied out of the caches of the core, and its memory serves the next one.
    Raises `ValueError` for examples whose arrays differ in name, shape or type.
    """
    first = next(examples)
    batch = {name: np.empty((rows, *value.shape), value.dtype) for name, value in first.items()}
    for row, example in enumerate(itertools.chain([first], examples)):
        if example.keys() != batch.keys():
            raise ValueError(f"examples have {sorted(batch)} and {sorted(example)}")
        for name, value in example.items():
            if (value.shape, value.dtype) != (first[name].shape, first[name].dtype):
                raise ValueError(
                    f"{name} of examples is {first[name].dtype}{list(first[name].shape)} and "
                    f"{value.dtype}{list(value.shape)}"
                )
            batch[name][row] = value
    return batch


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends this worker process when the one that started it is gone, killed or not.

    Without workers the resource tracker of multiprocessing ends too, and removes shared memory.
    """
    del worker, workers
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end with parent").start()


def _close(reference: weakref.ref[BatchStream]) -> None:
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
) -> BatchStream:
    """Batches {"wave": float32 [rows, samples]} for the codec; samples fill whole frames."""
    library = open_library(config.source, sample_rate)
    samples = max(1, round(config.seconds * sample_rate / hop)) * hop
    items = Excerpts(config, library.table, library.waves, sample_rate, samples)
    return BatchStream(
        items,
        batch,
        frames=samples // hop,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )


def mixer(config: DataConfig, sample_rate: int, hop: int) -> Mixer:
    """The mixer over a config's manifests; mixtures fill whole frames of `hop` samples."""
    library = open_library(config.source, sample_rate)
    samples = example_frames(config, sample_rate, hop) * hop
    return Mixer(config.mix, library.table, library.waves, sample_rate, samples)


def video_tracks(mixer: Mixer, hop: int) -> VideoTracks | None:
    """The video features of a mixer's recordings; None if none has any."""
    return open_video_tracks(mixer.catalogue.table, mixer.arranger.waves, hop)


def recipe(config: DataConfig) -> dict[str, Any]:
    """The part of a config that a latent cache depends on: what decides the sound of a mixture."""
    return {
        "source": to_dict(config.source, free=False),
        "mix": to_dict(config.mix, free=False),
        "seed": config.seed,
    }


def example_frames(config: DataConfig, sample_rate: int, hop: int) -> int:
    """Codec frames of an example without a token budget."""
    return max(1, round(config.mix.seconds * sample_rate / hop))


def cached_examples(
    config: DataConfig, sample_rate: int, hop: int, frames: int
) -> CachedExamples | LabelledExamples:
    """The examples of a config with a latent cache, pseudo-labels or both."""
    if config.labels.folder:
        return LabelledExamples(config, sample_rate, hop, frames)
    return CachedExamples(config, Cache(config.cache), sample_rate, hop, frames)


def examples(
    config: DataConfig, sample_rate: int, hop: int
) -> MixedExamples | CachedExamples | LabelledExamples:
    """The examples of a config without recipes: mixed as they are read, or latents."""
    if config.encoded:
        return cached_examples(config, sample_rate, hop, example_frames(config, sample_rate, hop))
    mixtures = mixer(config, sample_rate, hop)
    return MixedExamples(config, mixtures, sample_rate, hop, video_tracks(mixtures, hop))


def separation_batches(
    config: DataConfig,
    sample_rate: int,
    hop: int,
    batch: int,
    *,
    process_index: int | None = None,
    process_count: int | None = None,
) -> BatchStream:
    """Batches for the separator at a codec's rate; keys and shapes in `data/examples.py`.

    With `config.cache` or `config.labels` the signals are latents from there, else waves mixed on
    the fly; with `config.blend` they are as each of these says. Every batch
    has `batch` items, unless `config.batches.token_budget` says how many there are. Raises
    `UserError` for buckets that the budget or the records of the cache are too small for, for
    pairs in batches of an odd number, and for kinds of prompts that no part of the stream can have.
    """
    _check_shares(config)
    frames = example_frames(config, sample_rate, hop)
    if config.prompts.pair_share and batch % 2 and not config.batches.token_budget:
        raise UserError(
            f"batch={batch} must be even, so that it has both examples of a pair "
            f"(data.prompts.pair_share={config.prompts.pair_share})"
        )
    schedule = None
    if config.batches.token_budget:
        schedule = Schedule(config.batches, config.seed, sample_rate / hop)
    if config.blend:
        items = blended_examples(
            config,
            lambda one: examples(one, sample_rate, hop),
            schedule.first if schedule else lambda step: step * batch,
        )
    else:
        items = examples(config, sample_rate, hop)
    if schedule:
        _check_lengths(config, items, schedule, sample_rate / hop)
    return BatchStream(
        items,
        schedule or batch,
        frames=frames,
        workers=config.workers,
        process_index=process_index,
        process_count=process_count,
    )


def _check_shares(config: DataConfig) -> None:
    """Raises `UserError` for absent prompts or pairs where all examples are pseudo-labels.

    In a blend the parts without labels have them, and so has a cache beside labels.
    """
    parts = config.parts
    if any(not one.labels.folder or (one.cache and one.labels.share < 1) for one in parts):
        return
    for name in ("absent_share", "pair_share"):
        if share := getattr(config.prompts, name):
            raise UserError(
                f"data.prompts.{name}={share:g} has no effect, since all examples are labels: set "
                "it to 0, or give a data.cache beside data.labels.folder, with a data.labels.share "
                "below 1"
            )


def _check_lengths(config: DataConfig, items: Any, schedule: Schedule, frame_rate: float) -> None:
    """Raises `UserError` for records of a cache that are too short for the last bucket."""
    frames = getattr(items, "record_frames", None)
    if frames is not None and frames < schedule.buckets[-1].shortest:
        raise UserError(
            f"data.batches.buckets_s={config.batches.buckets_s}: the records of "
            f"{items.folders} are too short for the last, they have {frames / frame_rate:g} s"
        )
