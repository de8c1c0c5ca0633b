"""A sampler as plain numbers, so that a loop outside of this package can follow it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sam_audio_jax.separator import flow


def solver_steps(sampler: flow.SamplerConfig) -> list[dict[str, Any]]:
    """The steps of a sampler: what is evaluated where, and what is added to the state.

    Each step is `{"evaluate": [{"time", "size", "add"}, ...], "add"}`; `size` is what a model for
    few steps is given as the size of the step. Slopes are numbered in the order in
    which they are evaluated; `add` has pairs of such a number and a factor. A slope is the velocity
    at the step's first state plus the `add` of the evaluation; the step's `add` leads to the next
    state.

    Every solver adds multiples of slopes, so the factors are read off it: it runs from zero with
    slopes that are unit vectors.
    """
    steps, first = [], 0
    for number in range(sampler.steps):
        steps.append(_step(sampler, number, first))
        first += len(steps[-1]["evaluate"])
    return steps


def _step(sampler: flow.SamplerConfig, number: int, first: int) -> dict[str, Any]:
    """One step, whose slopes have numbers from `first`."""
    evaluations: list[dict[str, Any]] = []
    zeros = jnp.zeros((1, 1, first + sampler.evaluations_per_step))

    def velocity(x: Array, time: Array) -> Array:
        size = float(sampler.step_size(time)[0])
        evaluations.append({"time": float(time[0]), "size": size, "add": _terms(x)})
        return zeros.at[0, 0, first + len(evaluations) - 1].set(1.0)

    # Those of a multistep method are the last ones; before the first there are none.
    past = range(first - 1, first - 1 - len(flow.no_slopes(zeros, sampler)), -1)
    earlier = tuple(zeros.at[0, 0, one].set(1.0) if one >= 0 else zeros for one in past)
    x, _ = flow.step(velocity, zeros, jnp.float32(number), sampler, earlier)
    return {"evaluate": evaluations, "add": _terms(x)}


def _terms(x: Array) -> list[tuple[int, float]]:
    row = np.asarray(x)[0, 0]
    return [(int(slope), float(row[slope])) for slope in np.flatnonzero(row)]
