"""When a run is evaluated: by step count, at named steps, at its end, and never twice."""

from sam_audio_jax.train.config import RunConfig
from sam_audio_jax.train.due import Due
from sam_audio_jax.train.step_timer import StepTimer


def evaluated(config: RunConfig, before: set[int]) -> list[int]:
    due = Due(config, StepTimer(1, 0.0), before)
    return [done for done in range(11) if due.evaluation(done, due.end(done))]


def test_evaluations_are_due_at_multiples_at_named_steps_and_at_the_end():
    assert evaluated(RunConfig(steps=10, eval_every=4, eval_at=(3, 8)), set()) == [3, 4, 8, 10]
    assert evaluated(RunConfig(steps=10, eval_at=(3, 7)), {3}) == [7, 10]
    assert evaluated(RunConfig(steps=10), set()) == [10]
