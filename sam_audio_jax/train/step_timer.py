"""Seconds that each part of training takes, measured on the host, and the speed of the run."""

import collections
import time
from collections.abc import Callable

import jax
from jaxtyping import PyTree

PARTS: tuple[str, ...] = ("input", "step", "checkpoint")
RECENT = 50  # steps over which the speed is measured


class StepTimer:
    """Measures the seconds that each part of training takes.

    The host dispatches steps to the devices without waiting for them, but is never more than a few
    ahead, so over many steps the parts add up to the time that they took. `input` is the wait for
    batches, `checkpoint` the time that saving blocks (files are written in the background), `step`
    the rest: dispatch and the wait for the devices. Evaluation counts for no part.

    `seconds` continues the training time of earlier starts of the run.
    """

    def __init__(self, frames_per_step: int | Callable[[], int], seconds: float = 0.0):
        self.seconds = seconds
        self.frames_per_step = frames_per_step
        self.shapes: set[tuple] = set()
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.steps = 0  # since the last `means`
        self.clock = time.monotonic()
        self.times: collections.deque[float] = collections.deque(maxlen=RECENT)
        self.frames: collections.deque[int] = collections.deque(maxlen=RECENT)

    def add(self, part: str) -> None:
        """Counts the seconds since the last `add` or `skip` for `part`."""
        before = self.clock
        self.skip()
        self.spent[part] += self.clock - before
        self.seconds += self.clock - before

    def skip(self) -> None:
        """Counts the seconds since the last `add` or `skip` for no part."""
        self.clock = time.monotonic()

    def is_new(self, batch: PyTree) -> bool:
        """Whether no batch had these shapes before.

        Such a step compiles, so the measurement of the speed starts anew.
        """
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes in self.shapes:
            return False
        self.shapes.add(shapes)
        self.times.clear()
        self.frames.clear()
        return True

    def count(self) -> int:
        """Frames of the newest step."""
        frames = self.frames_per_step
        self.frames.append(frames() if callable(frames) else frames)
        return self.frames[-1]

    def advance(self) -> None:
        """Counts one step."""
        self.steps += 1
        self.times.append(time.monotonic())

    def means(self) -> dict[str, float]:
        """Seconds per step of each part over the steps since the last call, and `input_share`.

        That is the part of the time of a step that was spent waiting for its batch.
        """
        means = {f"seconds_{part}": self.spent[part] / max(self.steps, 1) for part in PARTS}
        working = self.spent["input"] + self.spent["step"]
        means["input_share"] = self.spent["input"] / working if working else 0.0
        self.spent, self.steps = dict.fromkeys(PARTS, 0.0), 0
        return means

    def seconds_per_step(self) -> float:
        """The mean over recent steps; 0 before there are two."""
        if len(self.times) < 2:
            return 0.0
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    def progress_text(self, seconds_left: float) -> str:
        """Speed and time left, for the progress bar."""
        if not self.seconds_per_step():
            return "compiling"
        minutes, seconds = divmod(round(seconds_left), 60)
        speed = sum(list(self.frames)[1:]) / (self.times[-1] - self.times[0])
        return f"{speed:.0f} frames/s, {minutes}:{seconds:02d} left"
