"""When a run logs, saves, evaluates and ends: by step count or by the clock of process 0."""

import time

import jax

from sam_audio_jax import distributed
from sam_audio_jax.train.config import RunConfig
from sam_audio_jax.train.step_timer import StepTimer


class Due:
    """Decides what is due after a step, with the same answer on all processes.

    With several processes, process 0 reads its clock and broadcasts the answer, only at steps that
    are logged.
    """

    def __init__(self, config: RunConfig, timer: StepTimer, evaluated: set[int]):
        self.evaluated = evaluated  # steps
        self._config, self._timer = config, timer
        self._saved_at = time.monotonic()

    def end(self, done: int) -> bool:
        """Whether training ends after `done` steps, by `steps` or by `max_minutes`."""
        if done >= self._config.steps:
            return True
        limit = 60 * self._config.max_minutes
        return bool(limit) and self._broadcast(self._timer.seconds >= limit, done)

    def evaluation(self, done: int, ended: bool) -> bool:
        """Whether the state after `done` steps is to be evaluated, and was not yet."""
        every = self._config.eval_every
        due = ended or bool(every and done and done % every == 0) or done in self._config.eval_at
        return due and done not in self.evaluated

    def log(self, done: int) -> bool:
        return done % self._config.log_every == 0

    def checkpoint(self, done: int) -> bool:
        """Whether the state after `done` steps is to be saved."""
        every = self._config.checkpoint.every_steps
        if every and done % every == 0:
            return True
        seconds = 60 * self._config.checkpoint.every_minutes
        return bool(seconds) and self._broadcast(time.monotonic() - self._saved_at >= seconds, done)

    def saved(self) -> None:
        """Starts the time until the next checkpoint."""
        self._saved_at = time.monotonic()

    def seconds_left(self, done: int) -> float:
        """Seconds until the run ends, estimated from the recent steps."""
        left = (self._config.steps - done) * self._timer.seconds_per_step()
        limit = 60 * self._config.max_minutes
        return min(left, limit - self._timer.seconds) if limit else left

    def _broadcast(self, answer: bool, done: int) -> bool:
        if jax.process_count() > 1 and not self.log(done):
            return False
        return distributed.broadcast_bool(answer)
