"""Ending a run from outside: SIGTERM (preemption) and SIGINT save and exit cleanly."""

import contextlib
import dataclasses
import signal
import types
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Interrupted(BaseException):
    """Thrown into code marked by `Stop.at_once` when the run is asked to end."""


@dataclasses.dataclass
class Stop:
    """Which signal asked this process to end (empty: none)."""

    by: str = ""
    throws: bool = False

    def asked(self, step: int) -> bool:
        """Whether to end after this step; the same answer on every process of a run.

        With several processes the coordination service of `jax.distributed` watches for SIGTERM
        and picks a step that all of them can reach.
        """
        if jax.process_count() == 1:
            return bool(self.by)
        if multihost_utils.reached_preemption_sync_point(step):
            self.by = self.by or "SIGTERM"
        return bool(self.by)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted` instead of waiting for the next step."""
        self.throws = jax.process_count() == 1
        try:
            if self.by and self.throws:
                raise Interrupted
            yield
        finally:
            self.throws = False


@contextlib.contextmanager
def watch_signals() -> Iterator[Stop]:
    """The first SIGTERM or SIGINT only marks the `Stop`; a second one acts as usual."""
    stop = Stop()
    before = {}

    def mark(number: int, frame: types.FrameType | None) -> None:
        del frame
        stop.by = signal.Signals(number).name
        signal.signal(number, before[number])
        if stop.throws:
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
