"""Multi-head attention of all transformers here (docs/model.md, "Attention")."""

import functools

import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax.nn import rope
from sam_audio_jax.nn.kernels import Kernel, attend
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

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        memory: Float[Array, "batch keys width"] | None = None,
        *,
        mask: Bool[Array, "batch keys"]
        | Bool[Array, "batch frames keys"]
        | None = None,  # True = may be attended; a row without any True gives a finite value
        angle: Float[np.ndarray, "frames pairs"] | Float[Array, "frames pairs"] | None = None,
        bias: Float[Array, "heads frames keys"] | None = None,
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
        mixed = attend(q, k, v, mask=mask, bias=bias, scale=self.scale, kernel=self.kernel)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))
