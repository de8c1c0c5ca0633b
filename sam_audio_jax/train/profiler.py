"""Records a few steps of a run for XProf."""

import pathlib

import jax

FIRST, LAST = 3, 8  # steps of this process that are recorded, LAST excluded; the first ones compile


class StepProfiler:
    """Records some steps to a folder; without a folder it does nothing."""

    def __init__(self, folder: pathlib.Path | None):
        self._folder, self._step = folder, 0

    def advance(self) -> None:
        """Counts one step; starts or ends the recording at its steps."""
        self._step += 1
        if self._folder and self._step == FIRST:
            jax.profiler.start_trace(str(self._folder))
        elif self._folder and self._step == LAST:
            jax.profiler.stop_trace()

    def close(self) -> None:
        """Ends the recording of a run that ends in the middle of it."""
        if self._folder and FIRST <= self._step < LAST:
            jax.profiler.stop_trace()
