"""Self-consistency: which rows, which steps, and that the step size changes nothing at first."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.few_steps import ConsistentRows, draw_steps, with_consistency
from sam_audio_jax.separator.flow import FlowConfig, SamplerConfig, draw_path
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions
from tests import tiny

CONFIG = FlowConfig(consistency_share=0.25, finest_steps=8)
KEY = jax.random.key(0)
X1 = jax.random.normal(jax.random.key(1), (8, 5, 4))


def test_each_shard_has_rows_of_both_objectives():
    rows = ConsistentRows.of(8, 0.25, shards=2)
    assert rows.take(jnp.arange(8)).tolist() == [0, 4]
    assert rows.put(jnp.arange(8), jnp.array([-1, -2])).tolist() == [-1, 1, 2, 3, -2, 5, 6, 7]
    with pytest.raises(UserError, match=r"consistency_share=0.25 of 1 rows .* is 0"):
        ConsistentRows.of(8, 0.25, shards=8)


def test_steps_lie_on_their_own_grids():
    begin, size = draw_steps(KEY, 600, CONFIG)
    assert set(np.unique(size)) == {1.0, 0.5, 0.25}  # halves of 0.25 are the finest, 1/8
    np.testing.assert_array_equal(begin % size, 0)
    assert begin.min() == 0
    assert (begin + size).max() == 1
    counts = np.unique(size, return_counts=True)[1]
    assert counts.min() > 150


def test_two_half_steps_are_what_a_whole_one_is_to_be():
    """Of `dx/dt = x`, whose mean velocity over a step is known."""
    sizes = []

    def velocity(x, time, size):
        sizes.append(size)
        growth = jnp.where(size > 0, jnp.expm1(size) / jnp.where(size > 0, size, 1), 1.0)
        return x * growth[:, None, None]

    noisy, time, wanted = draw_path(X1, KEY, CONFIG)
    rows = ConsistentRows.of(8, 0.5, 1)
    state, begin, mean, size = with_consistency(velocity, noisy, time, wanted, rows, KEY, CONFIG)
    np.testing.assert_array_equal(size[4:], 0)
    for kept, before in ((state, noisy), (begin, time), (mean, wanted)):
        np.testing.assert_array_equal(kept[4:], before[4:])
    # States are on the path of their noise, at the times where the steps begin.
    np.testing.assert_allclose(state, noisy + (begin - time)[:, None, None] * wanted, atol=1e-6)
    exact = state * (jnp.expm1(size) / jnp.where(size > 0, size, 1))[:, None, None]
    coarse = (size[:4] > 2 / CONFIG.finest_steps)[:, None, None]
    np.testing.assert_allclose(
        jnp.where(coarse, mean[:4], 0), jnp.where(coarse, exact[:4], 0), rtol=1e-4, atol=1e-5
    )
    assert len(sizes) == 2
    np.testing.assert_array_equal(sizes[0], jnp.where(coarse[:, 0, 0], size[:4] / 2, 0))


def test_a_constant_velocity_has_no_loss():
    velocity = lambda x, time, size: jnp.full_like(x, 3.0)  # noqa: E731
    noisy, time, _ = draw_path(X1, KEY, CONFIG)
    wanted = jnp.full_like(noisy, 3.0)
    rows = ConsistentRows.of(8, 0.25, 1)
    _, _, mean, _ = with_consistency(velocity, noisy, time, wanted, rows, KEY, CONFIG)
    np.testing.assert_array_equal(mean, 3.0)


def test_samplers_state_the_size_of_each_step():
    for grid in ("uniform", "cosine", "quadratic"):
        sampler = SamplerConfig(method="euler", steps=6, grid=grid)
        edges = sampler.times.astype(np.float32)
        sizes = sampler.step_size(jnp.asarray(edges[:-1]))
        np.testing.assert_allclose(sizes, np.diff(edges), atol=1e-6)
    assert SamplerConfig(method="ab2").step_size(jnp.ones(2)).tolist() == [0, 0]


def test_a_network_with_an_embedding_of_the_step_begins_as_it_was_to_the_bit():
    old = tiny.filled(lambda: Separator(tiny.SEPARATOR, rngs=Rngs(0)))
    dit = dataclasses.replace(tiny.SEPARATOR.dit, step_size=True)
    config = dataclasses.replace(tiny.SEPARATOR, dit=dit)
    new = tiny.filled(lambda: Separator(config, rngs=Rngs(0)))
    fresh = Separator(config, rngs=Rngs(0)).dit.step_size
    embedding = nnx.state(fresh)
    assert float(jnp.abs(fresh(jnp.array([0.0, 0.25, 1.0]))).max()) == 0
    nnx.update(new, nnx.state(old))
    nnx.update(new.dit.step_size, embedding)

    state = jax.random.normal(KEY, (2, 5, 16))
    conditions = Conditions(mixture=state[..., :8])
    time, size = jnp.array([0.1, 0.5]), jnp.array([0.5, 0.25])

    @jax.jit
    def velocity(network, step_size=None):
        return network(state, time, conditions, step_size=step_size)

    wanted = velocity(old)
    np.testing.assert_array_equal(velocity(new), wanted)
    np.testing.assert_array_equal(velocity(new, size), wanted)
    kernel = new.dit.step_size.project.down.kernel
    kernel.set_value(jnp.ones_like(kernel[...]))
    assert float(jnp.abs(velocity(new, size) - wanted).max()) > 0
