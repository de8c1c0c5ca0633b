"""Residual convolutions ahead of the blocks of the separator and of PEAV (patch size 1).

Arithmetic: docs/model.md, "Patcher".
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel
from sam_audio_jax.nn.linear import product
from sam_audio_jax.nn.norm import ItemNorm


class ConvBlock(nnx.Module):
    """`conv(silu(norm(x)))`, kernel 3 over frames, zeros beyond both ends.

    Only the norm uses `valid`: the convolution's output at padded frames is not masked.
    """

    def __init__(self, width: int, *, dtype: str, rngs: nnx.Rngs):
        self.dtype = dtype
        self.norm = ItemNorm(width, rngs=rngs)
        init = jax.nn.initializers.lecun_normal(in_axis=(0, 1))
        self.kernel = nnx.Param(
            init(rngs.params(), (3, width, width)), **parallel.axes("window", "embed", "mlp")
        )
        self.bias = nnx.Param(jnp.zeros(width), **parallel.axes("embed"))

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames width"]:
        hidden = nnx.silu(self.norm(x, valid)).astype(self.dtype)
        before, here, after = self.kernel[...].astype(self.dtype)
        # Three shifted products: several times faster than XLA's convolution on a CPU.
        late = jnp.pad(product(hidden, before)[:, :-1], ((0, 0), (1, 0), (0, 0)))
        early = jnp.pad(product(hidden, after)[:, 1:], ((0, 0), (0, 1), (0, 0)))
        return product(hidden, here) + late + early + self.bias[...].astype(self.dtype)


class Patcher(nnx.Module):
    """`x + second(first(x))`."""

    def __init__(self, width: int, *, dtype: str, rngs: nnx.Rngs):
        self.first = ConvBlock(width, dtype=dtype, rngs=rngs)
        self.second = ConvBlock(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames width"]:
        return x + self.second(self.first(x, valid), valid)
