"""Layers whose weight norm is applied once give the same signals, to the rounding of float16."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.codec.folded import FoldedConv1d, FoldedConvTranspose1d, folded
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import WeightNormConv1d, WeightNormConvTranspose1d
from sam_audio_jax.nn.rngs import Rngs


class Layers(nnx.Module):
    """One layer of each kind."""

    def __init__(self, rngs):
        self.strided = WeightNormConv1d(3, 4, 6, stride=3, rngs=rngs)
        self.up = WeightNormConvTranspose1d(4, 2, 3, rngs=rngs)
        self.strided.scale[...] *= 3.0
        self.up.scale[...] *= 0.5

    def __call__(self, x):
        return self.up(self.strided(x))


def test_folded_layers_compute_the_same():
    layers = Layers(Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 12, 3), np.float32))
    exact = np.asarray(layers(x))
    small = folded(layers)
    assert isinstance(small.strided, FoldedConv1d)
    assert isinstance(small.up, FoldedConvTranspose1d)
    kept = {leaf.dtype for leaf in (small.strided.kernel, small.up.matrix)}
    assert kept == {jnp.dtype("float16")}
    near = np.asarray(small(x))
    assert near.dtype == np.float32
    assert 0 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 1e-3


def test_shapes_of_an_abstract_codec_are_those_of_a_read_one():
    abstract = folded(nnx.eval_shape(lambda: Layers(Rngs(0))))
    whole = folded(Layers(Rngs(0)))
    for name in ("strided.kernel", "up.matrix"):
        layer, kernel = name.split(".")
        one, other = (getattr(getattr(net, layer), kernel) for net in (abstract, whole))
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_a_kernel_beyond_float16_is_refused():
    layers = Layers(Rngs(0))
    layers.up.scale[...] = jnp.full(4, 1e6)
    with pytest.raises(UserError, match=r"of the codec has .*too large .* use dtype='float32'"):
        folded(layers)
