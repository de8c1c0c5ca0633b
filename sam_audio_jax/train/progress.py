"""Counters of a run, and the metrics of steps that the devices may still be computing."""

import collections
import dataclasses

import jax
import numpy as np

from sam_audio_jax.errors import UserError
from sam_audio_jax.train.step import Scalars

STEPS_AHEAD = 2  # steps that the host may be ahead of the devices


class NotFinite(UserError):
    """A run ended because too many steps in a row had a loss or gradient that is not finite."""


@dataclasses.dataclass
class Progress:
    """What a checkpoint stores of a run besides its state, as plain JSON."""

    seconds: float = 0.0  # of training; evaluation does not count
    skipped: int = 0  # steps that were not finite, in all
    skipped_in_row: int = 0
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)  # not yet logged


class StepMetrics:
    """Collects the metrics of steps and fetches them from the devices only when they are read."""

    def __init__(self, progress: Progress, max_skipped: int):
        self.progress = progress
        self._max_skipped = max_skipped
        self._unread: collections.deque[Scalars] = collections.deque()

    def add(self, metrics: Scalars) -> None:
        """Adds those of the newest step; waits until the devices are only a few steps behind."""
        self._unread.append(metrics)
        if len(self._unread) > STEPS_AHEAD:
            jax.block_until_ready(self._unread[-1 - STEPS_AHEAD])

    def read(self) -> None:
        """Fetches the metrics of the steps since the last call and counts the skipped ones.

        Raises `NotFinite` after `max_skipped` skipped steps in a row.
        """
        progress = self.progress
        for values in jax.device_get(list(self._unread)):
            numbers = {name: float(value) for name, value in values.items()}
            skipped = bool(numbers.pop("skipped", 0.0))
            progress.skipped += skipped
            progress.skipped_in_row = progress.skipped_in_row + 1 if skipped else 0
            if not skipped:
                progress.pending.append(numbers)
            if progress.skipped_in_row >= self._max_skipped:
                raise NotFinite(
                    f"{progress.skipped_in_row} steps in a row had a loss or gradient that is "
                    "not finite; try a lower optim.peak_lr, or look at the data"
                )
        self._unread.clear()

    def means(self) -> dict[str, float]:
        """Means over the steps since the last call that were not skipped, and `skipped` in all."""
        self.read()
        pending = self.progress.pending
        names = pending[0] if pending else ()
        means = {name: float(np.mean([values[name] for values in pending])) for name in names}
        pending.clear()
        return means | {"skipped": self.progress.skipped}
