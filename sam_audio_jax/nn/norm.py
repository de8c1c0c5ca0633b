"""Normalisations whose statistics are always float32 (docs/model.md, "Norms")."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel


class RMSNorm(nnx.Module):
    """`x / sqrt(mean(x^2) + eps) * scale` over the last axis, computed in float32."""

    def __init__(
        self,
        size: int,
        *,
        eps: float,
        axis: parallel.LogicalAxis = "vector",
        rngs: nnx.Rngs,
    ):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size), **parallel.axes(axis))

    def __call__(self, x: Float[Array, "*rows size"]) -> Float[Array, "*rows size"]:
        wide = x.astype(jnp.float32)
        power = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(power + self.eps) * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps) * scale [+ bias]` over the last axis, in float32."""

    def __init__(self, size: int, *, eps: float = 1e-5, bias: bool = True, rngs: nnx.Rngs):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size), **parallel.axes("vector"))
        self.bias = nnx.Param(jnp.zeros(size), **parallel.axes("vector")) if bias else None

    def __call__(self, x: Float[Array, "*rows size"]) -> Float[Array, "*rows size"]:
        normal = standardise(x.astype(jnp.float32), (-1,), self.eps) * self.scale[...]
        return (normal if self.bias is None else normal + self.bias[...]).astype(x.dtype)


class ItemNorm(nnx.Module):
    """GroupNorm with one group: statistics over all frames and channels of an item.

    Without `valid` padded frames are counted too, as in the reference's separator, whose weights
    depend on it: the result of an item depends a little on the lengths of its batch (docs/model.md,
    "Patcher"). With `valid` (PEAV, docs/prompt_encoders.md, "PEAV") padded frames are not counted
    and are zeros in the result.
    """

    def __init__(self, size: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(size), **parallel.axes("vector"))
        self.bias = nnx.Param(jnp.zeros(size), **parallel.axes("vector"))

    def __call__(
        self,
        x: Float[Array, "batch frames size"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames size"]:
        where = None if valid is None else valid[:, :, None]
        normal = standardise(x.astype(jnp.float32), (1, 2), self.eps, where)
        normal = normal * self.scale[...] + self.bias[...]
        return (normal if where is None else jnp.where(where, normal, 0)).astype(x.dtype)


class FrozenBatchNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + eps) * scale + bias` with stored statistics, in float32."""

    def __init__(self, size: int, *, eps: float):
        self.eps = eps
        axes = parallel.axes("embed")
        self.scale = nnx.Param(jnp.ones(size), **axes)
        self.bias = nnx.Param(jnp.zeros(size), **axes)
        self.mean = nnx.Param(jnp.zeros(size), **axes)
        self.variance = nnx.Param(jnp.ones(size), **axes)

    def __call__(self, x: Float[Array, "*cells size"]) -> Float[Array, "*cells size"]:
        gain = self.scale[...] * jax.lax.rsqrt(self.variance[...] + self.eps)
        return (x.astype(jnp.float32) - self.mean[...]) * gain + self.bias[...]


def standardise(
    x: Float[Array, "*shape"],
    over: tuple[int, ...],
    eps: float,
    where: Bool[Array, "*#shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Scales to mean 0 and (biased) variance 1 along `over`, those of the elements in `where`."""
    centred = x - jnp.mean(x, axis=over, keepdims=True, where=where)
    variance = jnp.mean(jnp.square(centred), axis=over, keepdims=True, where=where)
    return centred * jax.lax.rsqrt(variance + eps)
