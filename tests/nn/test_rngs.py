"""Keys of networks that are initialised are those of `nnx.Rngs`."""

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.stack import stacked


class Layers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.stack = stacked(lambda rngs: nnx.Linear(3, 3, rngs=rngs), 2, rngs)
        self.last = nnx.Param(jax.random.normal(rngs.params(), (4,)))


def weights(kind: type[nnx.Rngs]) -> nnx.State:
    return nnx.state(Layers(kind(5)))


def test_weights_are_those_of_the_library_s_keys():
    ours, theirs = (jax.jit(lambda kind=kind: weights(kind))() for kind in (Rngs, nnx.Rngs))
    assert len(jax.tree.leaves(ours)) == 5
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_no_key_asks_a_traced_count_for_its_sharding(monkeypatch):
    """JAX answers with an error that shows the whole program so far."""

    def sharding(tracer):
        raise AssertionError("asked for the sharding of a tracer")

    monkeypatch.setattr(jax.core.Tracer, "sharding", property(sharding))
    nnx.eval_shape(lambda: Layers(Rngs(0)))
    with pytest.raises(AssertionError, match="asked"):
        nnx.eval_shape(lambda: Layers(nnx.Rngs(0)))
