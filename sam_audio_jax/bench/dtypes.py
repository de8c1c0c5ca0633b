"""How far bfloat16 leads away from float32, for `small` at full size; docs/numerics.md."""

import dataclasses
import zlib
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
    random_weights,
)
from sam_audio_jax.separator.flow import SamplerConfig, sample
from sam_audio_jax.separator.model import Separator, SeparatorConfig

STEPS = 16  # of the midpoint solver
DTYPES = (  # of the parameters and of the products; the first pair is what the others differ from
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
)


def rows() -> Iterator[str]:
    """Yields the lines of a table: the error of one velocity, and of each stem after the solver.

    An error is |a - b| / |b|, where b is computed in float32 throughout.
    """
    yield f"small, {FRAMES} frames, midpoint, {STEPS} steps; |a - b| / |b| against float32\n"
    yield "| parameters | compute | one velocity | target | residual |\n|---|---|---|---|---|"
    weights, exact = None, None
    for parameters, compute in DTYPES:
        config = SeparatorConfig(dit=dataclasses.replace(SMALL, dtype=compute))
        graph = nnx.graphdef(nnx.eval_shape(_maker(config)))
        if weights is None:
            weights = jax.jit(without_zeros)(random_weights(_maker(config))[1])
        state = jax.tree.map(lambda x, to=parameters: x.astype(to), weights)
        results = solve(graph, state, config)
        exact = results if exact is None else exact
        errors = [
            np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(results, exact, strict=True)
        ]
        yield f"| {parameters} | {compute} | {' | '.join(f'{e:.1e}' for e in errors)} |"


def _maker(config: SeparatorConfig) -> Callable[[], Separator]:
    """Returns what makes the separator of a config."""
    return lambda: Separator(config, rngs=nnx.Rngs(0))


def without_zeros(state: nnx.State) -> nnx.State:
    """Replaces zeros by random numbers: an initialised separator has velocity 0."""

    def redraw(path: tuple, x: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(4), zlib.crc32(str(path).encode()))
        inputs = x.shape[-2] if x.ndim > 1 else 100
        drawn = jax.random.normal(key, x.shape) * inputs**-0.5 if x.size > 1 else jnp.ones_like(x)
        return jnp.where(jnp.any(x), x, drawn)

    return jax.tree_util.tree_map_with_path(redraw, state)


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
