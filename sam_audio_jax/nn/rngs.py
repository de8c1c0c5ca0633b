"""The random keys from which networks are initialised: those of `nnx.Rngs`, at less cost."""

import jax
from flax import nnx


class _Stream(nnx.RngStream):
    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        # Set as a whole: an update by `[...] += 1` asks a traced count for its sharding, and JAX
        # prints the program so far into the error. That was most of the time of a trace.
        self.count.set_value(self.count[...] + 1)
        return key


class Rngs(nnx.Rngs):
    """`nnx.Rngs(seed)`, key for key; a network is traced in a third to a fifth of the time."""

    def __init__(self, seed: int):
        super().__init__()
        self.default = _Stream(seed, tag="default")
