"""The PEAV transformer over audio frames, used by the span predictor and the judge.

Paper: arXiv 2512.19687. Arithmetic: docs/prompt_encoders.md, "PEAV".
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Positive, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.embed import GatedProjection
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import RMSNorm
from sam_audio_jax.nn.patcher import Patcher
from sam_audio_jax.nn.stack import scan_blocks, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeavConfig(Checked, where="peav"):
    """Size and numerics of the transformer; the defaults are pe-a-frame-large's."""

    depth: Depth = 28
    width: Size = 1792  # residual stream
    heads: Size = 14
    mlp: Size = 4800
    norm_eps: Positive = 1e-5
    max_positions: Size = 10_000  # the rotary base is twice this, at least 10,000
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UserError(
                f"peav.width={self.width} must be a multiple of twice peav.heads={self.heads}"
            )

    @property
    def theta(self) -> float:
        """Base of the rotary frequencies; `rope_theta` of published configs is not used."""
        return rope.base(self.max_positions)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class Block(nnx.Module):
    """Self-attention and feed-forward, both pre-normalised."""

    def __init__(self, config: PeavConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.width, eps=config.norm_eps, rngs=rngs)
        self.attention = Attention(
            config.width,
            config.heads,
            config.head_dim,
            scale=config.head_dim**-0.5,
            qk_eps=config.norm_eps,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.mlp_norm = RMSNorm(config.width, eps=config.norm_eps, rngs=rngs)
        self.mlp = GatedProjection(
            config.width, config.mlp, config.width, dropout=0.0, dtype=config.dtype, rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        valid: Bool[Array, "batch tokens"] | None,
        angle: Float[np.ndarray, "tokens pairs"],
    ) -> Float[Array, "batch tokens width"]:
        x = x + self.attention(self.attention_norm(x), mask=valid, angle=angle)
        return x + self.mlp(self.mlp_norm(x))


class Peav(nnx.Module):
    """Maps frames to frames and to one vector for all of them, that of a class token before them.

    Padded frames are masked in attention and in the norms of the convolutions; as in the reference
    their own outputs are not zeroed.
    """

    def __init__(self, config: PeavConfig, *, rngs: nnx.Rngs):
        self.config = config
        token = jax.random.normal(rngs.params(), (1, 1, config.width)) * config.width**-0.5
        self.class_token = nnx.Param(token, **parallel.axes("channels", "channels", "embed"))
        self.patcher = Patcher(config.width, dtype=config.dtype, rngs=rngs)
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)
        self.norm = RMSNorm(config.width, eps=config.norm_eps, rngs=rngs)
        self.out = linear(
            config.width, config.width, ("embed", "mlp"), dtype=config.dtype, rngs=rngs
        )

    def with_class(
        self,
        frames: Float[Array, "batch frames width"],
        valid: Bool[Array, "batch frames"] | None,
    ) -> tuple[Float[Array, "batch tokens width"], Bool[Array, "batch tokens"] | None]:
        """Returns class token and frames (`tokens = 1 + frames`) and which of them are valid."""
        batch, _, width = frames.shape
        token = jnp.broadcast_to(self.class_token[...].astype(frames.dtype), (batch, 1, width))
        if valid is not None:
            valid = jnp.concatenate([jnp.ones((batch, 1), bool), valid], axis=1)
        return jnp.concatenate([token, frames], axis=1), valid

    def angles(self, tokens: int) -> Float[np.ndarray, "tokens pairs"]:
        """Rotary angles of all tokens; the class token has position 0."""
        return rope.angles(tokens, self.config.head_dim, self.config.theta)

    def __call__(
        self,
        frames: Float[Array, "batch frames width"],
        valid: Bool[Array, "batch frames"] | None = None,  # None = all
    ) -> tuple[Float[Array, "batch frames width"], Float[Array, "batch width"]]:
        """Returns the output at the frames and at the class token."""
        x, valid = self.with_class(frames, valid)
        x = self.patcher(x, valid)
        angle = self.angles(x.shape[1])
        x = scan_blocks(
            self.blocks,
            x,
            lambda block, x, _: block(x, valid=valid, angle=angle),
            axes=("batch", "frames", "width"),
            dtype=self.config.dtype,
        )
        x = self.out(self.norm(x))
        return x[:, 1:], x[:, 0]
