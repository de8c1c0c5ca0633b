"""How far bfloat16 and int8 lead away from float32, for `small` at full size; docs/numerics.md."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax.bench.transformer import (
    FRAMES,
    SMALL,
    random_conditions,
    random_latents,
)
from sam_audio_jax.bench.weights import random_network
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import check_storage, stored
from sam_audio_jax.separator.flow import SamplerConfig, sample
from sam_audio_jax.separator.model import Separator, SeparatorConfig

STEPS = 16  # of the midpoint solver
DTYPES = (  # of the parameters and of the products; the first pair is what the others differ from
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
    ("int8", "bfloat16"),  # as inference keeps them: only the matrices (nn/storage.py)
)


def rows() -> Iterator[str]:
    """Yields the lines of a table: the error of one velocity, and of each stem after the solver.

    An error is |a - b| / |b|, where b is computed in float32 throughout. Raises `UserError`
    without Qwix.
    """
    check_storage("int8", on_mesh=False)
    yield f"small, {FRAMES} frames, midpoint, {STEPS} steps; |a - b| / |b| against float32\n"
    yield "| parameters | compute | one velocity | target | residual |\n|---|---|---|---|---|"
    weights, exact = None, None
    for parameters, compute in DTYPES:
        config = SeparatorConfig(dit=dataclasses.replace(SMALL, dtype=compute))
        graph = nnx.graphdef(nnx.eval_shape(_maker(config)))
        if weights is None:
            weights = nnx.as_pure(nnx.state(random_network(_maker(config))))
        if parameters == "int8":
            graph, kept = nnx.split(stored(nnx.merge(graph, weights), "int8"))
            state = nnx.as_pure(kept)
        else:
            state = jax.tree.map(lambda x, to=parameters: x.astype(to), weights)
        results = solve(graph, state, config)
        exact = results if exact is None else exact
        errors = [
            np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(results, exact, strict=True)
        ]
        yield f"| {parameters} | {compute} | {' | '.join(f'{e:.1e}' for e in errors)} |"


def _maker(config: SeparatorConfig) -> Callable[[], Separator]:
    """Returns what makes the separator of a config."""
    return lambda: Separator(config, rngs=Rngs(0))


def solve(graph: nnx.GraphDef, state: nnx.State, config: SeparatorConfig) -> list[np.ndarray]:
    """Returns the velocity at time 0 and the latents of target and residual after STEPS steps."""

    @jax.jit
    def run(state, noise, conditions):
        separator = nnx.merge(graph, state)
        prepared = separator.prepare(conditions)

        def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
            return separator.velocity(x, t, prepared)

        first = velocity(noise, jnp.zeros(1))
        return first, sample(velocity, noise, SamplerConfig(steps=STEPS))

    first, latents = run(state, random_latents(config), random_conditions(config))
    return [np.asarray(first), *np.split(np.asarray(latents), 2, axis=-1)]
