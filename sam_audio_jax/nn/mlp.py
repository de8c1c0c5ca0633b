"""The two-layer perceptron of vision and language towers.

See docs/prompt_encoders.md, "Perception Encoder".
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax.nn.linear import linear


class Mlp(nnx.Module):
    """`down(gelu(up(x)))` with biases; GELU in its exact (erf) form."""

    def __init__(self, width: int, hidden: int, *, dtype: str, rngs: nnx.Rngs):
        self.up = linear(width, hidden, ("embed", "mlp"), dtype=dtype, bias=True, rngs=rngs)
        self.down = linear(hidden, width, ("mlp", "embed"), dtype=dtype, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        return self.down(jax.nn.gelu(self.up(x), approximate=False))
