"""Batches for training: endless, the same for a seed whatever the workers, resumable anywhere.

Item `i` of a run is a function of (seed, i) alone and batch `n` holds items `n * batch` onwards;
process p of P takes every P-th. So the whole state of an iterator is the number of batches given,
and it may go on with other workers or, for the same global batch, with other processes.
"""

import atexit
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

import absl.flags
import grain
import jax
import numpy as np

from sam_audio_jax.data.excerpts import ExcerptConfig, Excerpts
from sam_audio_jax.data.source import load_manifests, open_waves
from sam_audio_jax.errors import UserError

__all__ = ["Batches", "ExcerptConfig", "Items", "codec_excerpts"]

Batch = dict[str, np.ndarray]


class Items(Protocol):
    """Random access to single examples; picklable, for worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...


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
        first = self._given * self.batch + self.process_index
        dataset = grain.MapDataset.source(self.items)[first :: self.process_count]
        dataset = dataset.batch(self.batch // self.process_count, drop_remainder=True)
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
