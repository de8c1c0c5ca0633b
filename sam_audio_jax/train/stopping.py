"""Ending a run from outside: SIGTERM (preemption) and SIGINT save and exit cleanly."""

import contextlib
import dataclasses
import signal
import types
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Interrupted(BaseException):
    """Raised inside `Stop.at_once` when a signal asks the run to end."""


@dataclasses.dataclass
class Stop:
    """The signal that asked this process to end, if any."""

    signal: str = ""  # its name; empty: none
    raises: bool = False  # at once, instead of waiting for the next step

    def requested(self, step: int) -> bool:
        """Whether to end after this step; the same answer on every process of a run.

        With several processes the coordination service of `jax.distributed` watches for SIGTERM
        and picks a step that all of them can reach.
        """
        if jax.process_count() == 1:
            return bool(self.signal)
        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = self.signal or "SIGTERM"
        return bool(self.signal)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted` instead of waiting for the next step."""
        self.raises = jax.process_count() == 1
        try:
            if self.signal and self.raises:
                raise Interrupted
            yield
        finally:
            self.raises = False


@contextlib.contextmanager
def watch_signals() -> Iterator[Stop]:
    """The first SIGTERM or SIGINT is noted in the `Stop`; a second one acts as usual."""
    stop = Stop()
    before = {}

    def mark(number: int, frame: types.FrameType | None) -> None:
        del frame
        stop.signal = signal.Signals(number).name
        signal.signal(number, before[number])
        if stop.raises:
            raise Interrupted

    # jax.distributed handles SIGTERM itself: replacing its handler would hide the preemption.
    watched = [signal.SIGTERM] if jax.process_count() == 1 else []
    for number in [*watched, signal.SIGINT] if jax.process_count() == 1 else watched:
        before[number] = signal.signal(number, mark)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
