"""Multi-head attention of all transformers here (docs/model.md, "Attention")."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.kernels import Bias, Kernel, attend
from sam_audio_jax.nn.linear import LECUN, Initializer, linear
from sam_audio_jax.nn.norm import RMSNorm


class Attention(nnx.Module):
    """Attention over `memory`, or over `x` itself.

    Channels hold whole heads one after another (`head * head_dim + element`), so that sharding the
    kernels' outer side shards heads. The reference's interleaved rows are reordered by `convert/`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        *,
        scale: float,  # of the scores
        qk_eps: float | None,  # of the RMSNorm on queries and keys; None = no such norm
        dtype: str,
        bias: bool = False,  # on all four projections
        extra_key: bool = False,  # a learned key with its value, which every query may attend to
        out_init: Initializer = LECUN,
        query_init: Initializer = LECUN,
        kernel: Kernel = "xla",
        rngs: nnx.Rngs,
    ):
        self.heads, self.scale = heads, scale
        self.kernel: Kernel = kernel
        inner = heads * head_dim
        to_heads = functools.partial(
            linear, width, inner, ("embed", "heads"), dtype=dtype, bias=bias, rngs=rngs
        )
        self.query = to_heads(init=query_init)
        self.key = to_heads()
        self.value = to_heads()
        self.out = linear(
            inner, width, ("heads", "embed"), dtype=dtype, bias=bias, init=out_init, rngs=rngs
        )
        norm = functools.partial(RMSNorm, head_dim, axis="head_dim", rngs=rngs)
        self.query_norm = None if qk_eps is None else norm(eps=qk_eps)
        self.key_norm = None if qk_eps is None else norm(eps=qk_eps)
        axes, small = parallel.axes("heads"), jax.nn.initializers.normal(0.02)
        self.extra_key = nnx.Param(small(rngs.params(), (inner,)), **axes) if extra_key else None
        self.extra_value = nnx.Param(small(rngs.params(), (inner,)), **axes) if extra_key else None

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        memory: Float[Array, "batch keys width"] | None = None,
        *,
        mask: Bool[Array, "batch keys"]
        | Bool[Array, "batch frames keys"]
        | None = None,  # True = may be attended; a row without any True gives a finite value
        angle: Float[np.ndarray, "frames pairs"] | Float[Array, "frames pairs"] | None = None,
        bias: Bias = None,
    ) -> Float[Array, "batch frames width"]:
        memory = x if memory is None else memory
        q, k, v = (
            y.reshape(*y.shape[:2], self.heads, -1)
            for y in (self.query(x), self.key(memory), self.value(memory))
        )
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if angle is not None:
            q, k = rope.rotate(q, angle), rope.rotate(k, angle)
        if self.extra_key is not None and self.extra_value is not None:
            k, v = _appended(k, self.extra_key[...]), _appended(v, self.extra_value[...])
            mask = None if mask is None else jnp.pad(mask, _one_more(mask), constant_values=True)
            bias = None if bias is None else jnp.pad(bias, _one_more(bias))
        mixed = attend(q, k, v, mask=mask, bias=bias, scale=self.scale, kernel=self.kernel)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))


def _appended(
    x: Float[Array, "batch keys heads size"], extra: Float[Array, " inner"]
) -> Float[Array, "batch keys_and_extra heads size"]:
    row = jnp.broadcast_to(extra.reshape(x.shape[2:]).astype(x.dtype), (len(x), 1, *x.shape[2:]))
    return jnp.concatenate([x, row], axis=1)


def _one_more(x: Array) -> list[tuple[int, int]]:
    """The padding of the last axis by one element."""
    return [(0, 0)] * (x.ndim - 1) + [(0, 1)]
