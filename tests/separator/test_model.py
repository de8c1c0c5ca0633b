"""What golden numbers cannot show: initialisation, gradients, dropout, remat, stacked layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import PromptedSeparator, Separator, SeparatorConfig
from sam_audio_jax.separator.prompts import Conditions

DIT = DitConfig(depth=2, width=16, heads=2, mlp=24, dropout=0.2, dtype="float32")
CONFIG = SeparatorConfig(dit=DIT, channels=3, text_width=5, video_width=7, anchor_width=6)
KEY = jax.random.key(0)
NOISY = jax.random.normal(KEY, (2, 6, 6))
TIME = jnp.array([0.1, 0.7])
CONDITIONS = Conditions(
    mixture=jax.random.normal(KEY, (2, 6, 3)),
    text=jax.random.normal(KEY, (2, 4, 5)),
    text_mask=jnp.array([[True] * 4, [True, False, False, False]]),
    video=jax.random.normal(KEY, (2, 6, 7)),
    anchors=jnp.array([[0, 0, 1, 1, 0, 0], [0, 2, 0, 0, 3, 3]]),
    valid=jnp.array([[True] * 6, [True] * 4 + [False] * 2]),
)


def moved(config=CONFIG) -> Separator:
    """A separator whose parameters are all random, so that no zero hides a part of it."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0))))
    leaves, tree = jax.tree.flatten(nnx.as_pure(state))
    keys = jax.random.split(KEY, len(leaves))
    new = [0.3 * jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, new))


@pytest.fixture(scope="module")
def separator():
    return moved()


@functools.partial(jax.jit, static_argnames="graph")
def velocity(params, key=None, conditions=CONDITIONS, *, graph):
    return nnx.merge(graph, params)(NOISY, TIME, conditions, dropout_key=key)


@functools.partial(jax.jit, static_argnames="graph")
def loss(params, key=None, *, graph):
    return jnp.sum(jnp.square(nnx.merge(graph, params)(NOISY, TIME, CONDITIONS, dropout_key=key)))


gradient = jax.jit(jax.grad(loss), static_argnames="graph")


def run(separator, conditions=CONDITIONS):
    graph, params = parts(separator)
    return velocity(params, None, conditions, graph=graph)


def parts(separator):
    graph, state = nnx.split(separator)
    return graph, nnx.as_pure(state)


def test_velocity_is_0_after_initialisation():
    fresh = jax.jit(lambda: Separator(CONFIG, rngs=Rngs(0)))()
    np.testing.assert_array_equal(run(fresh), 0)


def test_every_parameter_but_the_padding_learns(separator):
    graph, params = parts(separator)
    grads = nnx.to_flat_state(nnx.State(gradient(params, graph=graph)))
    for path, grad in grads:
        assert jnp.isfinite(grad).all(), path
        assert jnp.abs(grad).max() > 0, path
    table = dict(grads)[("embed_anchors", "embed")]
    np.testing.assert_array_equal(table[-1], 0)
    dead = dict(grads)[("project", "kernel")][2 * CONFIG.channels : 4 * CONFIG.channels]
    np.testing.assert_array_equal(dead, 0)


def test_dropout_needs_a_key_and_is_a_function_of_it(separator):
    graph, params = parts(separator)
    a, b = jax.random.split(KEY)
    assert loss(params, a, graph=graph) == loss(params, a, graph=graph)
    assert loss(params, a, graph=graph) != loss(params, b, graph=graph)
    assert loss(params, graph=graph) == loss(params, graph=graph)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialisation_changes_no_gradient(separator, remat):
    config = dataclasses.replace(CONFIG, dit=dataclasses.replace(DIT, remat=remat))
    graph, params = parts(separator)
    other, _ = nnx.split(nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0))))
    plain, again = (gradient(params, KEY, graph=g) for g in (graph, other))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), plain, again)


def test_bfloat16_computes_near_float32(separator):
    config = dataclasses.replace(CONFIG, dit=dataclasses.replace(DIT, dtype="bfloat16"))
    low, want = run(moved(config)), run(separator)
    assert low.dtype == jnp.float32
    assert jnp.abs(low - want).max() < 0.05 * jnp.abs(want).max()


def test_padded_text_and_keys_do_not_matter(separator):
    other = dataclasses.replace(CONDITIONS, text=CONDITIONS.text.at[1, 1:].set(9.0))
    np.testing.assert_allclose(run(separator, other), run(separator), atol=1e-5)


def test_program_does_not_grow_with_depth():
    def lines(depth):
        config = dataclasses.replace(CONFIG, dit=dataclasses.replace(DIT, depth=depth))
        graph, state = nnx.split(nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0))))
        run = jax.jit(lambda p: nnx.merge(graph, p)(NOISY, TIME, CONDITIONS))
        return len(run.lower(nnx.as_pure(state)).as_text().splitlines())

    assert lines(2) == lines(7)


def test_sizes_that_do_not_fit_are_the_users_error():
    with pytest.raises(UserError, match=r"dit\.width=18 must be a multiple of twice"):
        DitConfig(width=18, heads=2)
    text = T5Config(vocab_size=9, width=8, head_dim=4, heads=2, mlp=8, depth=1)
    with pytest.raises(UserError, match=r"text\.width=8 must equal separator\.text_width=5"):
        nnx.eval_shape(lambda: PromptedSeparator(text, CONFIG, rngs=Rngs(0)))


def test_too_many_frames_are_the_users_error():
    config = dataclasses.replace(CONFIG, dit=dataclasses.replace(DIT, max_positions=5))
    with pytest.raises(UserError, match="6 frames given, at most 5"):
        nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0))(NOISY, TIME, CONDITIONS))
