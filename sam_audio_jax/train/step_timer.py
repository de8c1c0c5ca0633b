"""Where the time of a run goes, as the host sees it, and how fast the run is."""

import collections
import time
from collections.abc import Callable

import jax
from jaxtyping import PyTree

PARTS: tuple[str, ...] = ("input", "step", "checkpoint")
RECENT = 50  # steps that speed is told of


class StepTimer:
    """A stopwatch: every moment between two laps belongs to one part.

    The host hands steps to the devices without waiting for them, but is never more than a few
    ahead, so over many steps the parts add up to the time that they took. `input` is the wait for
    batches that were not there yet, `checkpoint` what saving held up (the writing goes on in the
    background), `step` the rest: handing over and waiting for the devices. Evaluation is in none.
    """

    def __init__(self, frames_per_step: int | Callable[[], int]):
        self.frames_per_step = frames_per_step
        self.shapes: set[tuple] = set()
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.steps = 0  # since the last `means`
        self.clock = time.monotonic()
        self.times: collections.deque[float] = collections.deque(maxlen=RECENT)
        self.frames: collections.deque[int] = collections.deque(maxlen=RECENT)

    def add(self, part: str = "") -> float:
        """Seconds since the last lap; they count for `part`, if any."""
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        if part:
            self.spent[part] += seconds
        return seconds

    def is_new(self, batch: PyTree) -> bool:
        """Whether a batch of these shapes comes for the first time: steps that compile are slow."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes in self.shapes:
            return False
        self.shapes.add(shapes)
        self.times.clear()
        self.frames.clear()
        return True

    def count(self) -> int:
        """Frames of the step under way."""
        asked = self.frames_per_step
        self.frames.append(asked() if callable(asked) else asked)
        return self.frames[-1]

    def advance(self) -> None:
        """One step more."""
        self.steps += 1
        self.times.append(time.monotonic())

    def means(self) -> dict[str, float]:
        """Seconds a step of each part since the last call."""
        found = {f"seconds_{part}": self.spent[part] / max(self.steps, 1) for part in PARTS}
        self.spent, self.steps = dict.fromkeys(PARTS, 0.0), 0
        return found

    def seconds_per_step(self) -> float:
        """Over the recent steps; 0 before there are two."""
        if len(self.times) < 2:
            return 0.0
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    def progress_text(self, seconds_left: float) -> str:
        """For the bar."""
        pace = self.seconds_per_step()
        if not pace:
            return "compiling"
        minutes, seconds = divmod(round(seconds_left), 60)
        speed = sum(list(self.frames)[1:]) / (self.times[-1] - self.times[0])
        return f"{speed:.0f} frames/s, {minutes}:{seconds:02d} left"
