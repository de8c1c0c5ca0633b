"""A process that meets ever new shapes keeps a bounded number of compiled programs."""

import numpy as np
from flax import nnx

from sam_audio_jax.nn import call
from sam_audio_jax.nn.rngs import Rngs


def test_compiled_shapes_are_bounded(monkeypatch):
    monkeypatch.setattr(call, "KEPT_PROGRAMS", 3)
    network = call.Compiled(nnx.Linear(2, 2, rngs=Rngs(0)))

    def double(linear: nnx.Linear, x):
        return 2 * linear(x)

    first = np.asarray(network(double, np.ones((1, 2), np.float32)))
    counts = []
    for rows in range(1, 9):
        network(double, np.ones((rows, 2), np.float32))
        counts.append(call.jitted(double, ())._cache_size())
    assert max(counts) == 3
    assert min(counts[3:]) == 1
    np.testing.assert_array_equal(network(double, np.ones((1, 2), np.float32)), first)
