"""The alignment loss: the reference's numbers, padding, and the gradients of its parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.flax import load_file

from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import Dit, DitConfig
from sam_audio_jax.separator.representation_alignment import (
    AlignmentHead,
    alignment_loss,
    cosine,
    to_frames,
)

DIT = DitConfig(depth=3, width=8, heads=2, mlp=8, frequency_width=8, dropout=0.2, dtype="float32")
KEY = jax.random.key(0)
VALID = jnp.arange(5) < jnp.array([5, 3])[:, None]


def vectors(seed):
    return jax.random.normal(jax.random.key(seed), (2, 5, 4))


@pytest.mark.golden
def test_cosine_mask_and_mean(fixtures_dir):
    paths = sorted((fixtures_dir / "panns").glob("alignment_loss*.safetensors"))
    assert paths
    for path in paths:
        case = load_file(path)
        vectors = case["prediction"], case["target"]
        np.testing.assert_allclose(cosine(*vectors), case["cosine"], atol=1e-6)
        loss = alignment_loss(*vectors, case["mask"] > 0)
        np.testing.assert_allclose(loss, case["loss"][0], atol=1e-6)


def test_padded_frames_do_not_count():
    prediction, target = vectors(1), vectors(2)
    want = alignment_loss(prediction, target, VALID)
    junk = jnp.where(VALID[..., None], prediction, 1e3)
    np.testing.assert_allclose(alignment_loss(junk, target, VALID), want)
    padding = ((0, 0), (0, 4), (0, 0))
    long = [jnp.pad(x, padding, constant_values=9.0) for x in (prediction, target)]
    mask = jnp.pad(VALID, ((0, 0), (0, 4)))
    np.testing.assert_allclose(alignment_loss(*long, mask), want, rtol=1e-6)
    assert alignment_loss(prediction, target, jnp.zeros_like(VALID)) == 0


def test_scale_does_not_matter_and_the_loss_of_silence_is_1():
    prediction = vectors(1)
    np.testing.assert_allclose(alignment_loss(prediction, 7 * prediction, VALID), 0, atol=1e-6)
    gradient = jax.grad(lambda x: alignment_loss(x, jnp.zeros_like(x), VALID))
    assert alignment_loss(prediction, jnp.zeros_like(prediction), VALID) == 1
    for x in (prediction, jnp.zeros_like(prediction)):
        assert jnp.isfinite(gradient(x)).all()
    to_teacher = jax.grad(lambda x: alignment_loss(prediction, x, VALID))(vectors(2))
    np.testing.assert_array_equal(to_teacher, 0)


def test_a_segment_covers_its_frames_and_the_last_one_goes_on():
    segments = jnp.array([[[0.0], [1.0], [2.0]]])
    got = to_frames(segments, 30, 8.0)[0, :, 0]
    np.testing.assert_array_equal(got, [0] * 8 + [1] * 8 + [2] * 14)
    late = to_frames(segments, 6, 8.0, jnp.array([5.0]))[0, :, 0]
    np.testing.assert_array_equal(late, [0, 0, 0, 1, 1, 1])
    odd = to_frames(segments, 8, 2.5)[0, :, 0]
    np.testing.assert_array_equal(odd, [0, 0, 0, 1, 1, 2, 2, 2])


def test_lines_between_the_centres_of_segments():
    segments = jnp.array([[[0.0], [8.0], [16.0]]])
    got = to_frames(segments, 24, 8.0, interpolation="linear")[0, :, 0]
    np.testing.assert_allclose(got, np.clip(np.arange(24) - 3.5, 0, 16))
    later = to_frames(segments, 10, 8.0, jnp.array([6.0]), interpolation="linear")[0, :, 0]
    np.testing.assert_allclose(later, got[6:16])


def dit_of(config=DIT):
    """A transformer whose parameters are all random, so that no gate is zero."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Dit(config, 4, rngs=Rngs(0))))
    leaves, tree = jax.tree.flatten(nnx.as_pure(state))
    keys = jax.random.split(KEY, len(leaves))
    new = [0.3 * jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, new))


INPUT = jax.random.normal(KEY, (2, 5, 8)), jnp.array([0.1, 0.7]), jax.random.normal(KEY, (2, 2, 8))


def test_the_hidden_state_is_that_of_the_first_blocks_and_changes_no_velocity():
    both = jax.jit(lambda dit: (dit(*INPUT, key=KEY), dit.with_hidden(*INPUT, layer=2, key=KEY)))
    plain, (split, hidden) = both(dit_of())
    np.testing.assert_allclose(split, plain, atol=1e-5)
    assert hidden.shape == (2, 5, 8)
    graph, state = nnx.split(dit_of())
    for way, path in (("later", slice(2, None)), ("earlier", slice(0, 2))):
        blocks = jax.tree.map(lambda w, part=path: w.at[part].add(0.1), state["blocks"])
        moved = nnx.merge(graph, nnx.State(dict(state) | {"blocks": blocks}))
        other = both(moved)[1][1]
        same = bool(jnp.allclose(other, hidden, atol=1e-6))
        assert same == (way == "later"), way


def test_a_call_runs_its_blocks_in_one_scan():
    dit = dit_of(dataclasses.replace(DIT, dropout=0.0))

    def scans(call):
        return str(jax.make_jaxpr(call)(dit)).count(" scan[")

    assert scans(lambda dit: dit(*INPUT)) == 1
    assert scans(lambda dit: dit.with_hidden(*INPUT, layer=1)) == 2


def test_the_gradient_reaches_the_head_and_the_blocks_below():
    dit, head = dit_of(), AlignmentHead(8, 6, 4, dtype="float32", rngs=Rngs(0))

    def loss(dit, head):
        hidden = dit.with_hidden(*INPUT, layer=2, key=KEY)[1]
        return alignment_loss(head(hidden), vectors(2), VALID)

    below, above = jax.jit(jax.grad(loss, argnums=(0, 1)))(dit, head)
    for path, grad in jax.tree_util.tree_leaves_with_path(above):
        assert jnp.abs(grad).max() > 0, path
    for path, grad in jax.tree_util.tree_leaves_with_path(below.blocks):
        assert jnp.abs(grad[:2]).max() > 0, path
        np.testing.assert_array_equal(grad[2:], 0)
