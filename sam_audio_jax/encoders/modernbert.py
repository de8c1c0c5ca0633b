"""The ModernBERT encoder, which embeds texts for the span predictor and the judge.

Paper: arXiv 2412.13663. Arithmetic: docs/prompt_encoders.md, "ModernBERT". Released models use the
first 22 layers of ModernBERT-large, without its final norm.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Positive, PositiveCount, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.embed import GatedProjection
from sam_audio_jax.nn.norm import LayerNorm, standardise
from sam_audio_jax.nn.stack import scan_blocks, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBertConfig(Checked, where="text"):
    """Sizes of the encoder; the defaults are the layers of ModernBERT-large that are used."""

    vocab_size: PositiveCount = 50368
    width: Size = 1024
    depth: Depth = 22  # layers that run; later layers of a checkpoint are not built
    heads: Size = 16
    mlp: Size = 2624
    window: Size = 128  # tokens; local layers attend to half of it on each side
    global_every: Size = 3  # layers 0, 3, 6, ... attend to all tokens
    global_theta: Positive = 160_000.0
    local_theta: Positive = 10_000.0
    eps: Positive = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UserError(
                f"text.width={self.width} must be a multiple of twice text.heads={self.heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    """Inputs of one layer besides its weights; stacked over layers, they are scanned with them."""

    attention_scale: Float[Array, "*layers width"]  # of the norm before the attention
    is_first: Bool[Array, "*layers"]  # the first layer has no norm before the attention
    is_global: Bool[Array, "*layers"]  # attends to all tokens, not to a window alone


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionInputs:
    """Attention masks and rotary angles of both kinds of layers: global first, then local."""

    mask: Bool[Array, "2 batch tokens keys"]  # True = may be attended to
    angle: Float[Array, "2 tokens pairs"]

    def of(
        self, layer: Layer
    ) -> tuple[Bool[Array, "batch tokens keys"], Float[Array, "tokens pairs"]]:
        """Returns mask and angles of one layer."""
        return (
            jnp.where(layer.is_global, self.mask[0], self.mask[1]),
            jnp.where(layer.is_global, self.angle[0], self.angle[1]),
        )


def exact_gelu(x: Array) -> Array:
    """GELU by the error function, not by its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


class Block(nnx.Module):
    """Self-attention, then the gated feed-forward, both pre-normalised, no biases."""

    def __init__(self, config: ModernBertConfig, *, rngs: nnx.Rngs):
        self.eps = config.eps
        self.attention = Attention(
            config.width,
            config.heads,
            config.head_dim,
            scale=config.head_dim**-0.5,
            qk_eps=None,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.mlp_norm = LayerNorm(config.width, eps=config.eps, bias=False, rngs=rngs)
        self.mlp = GatedProjection(
            config.width,
            config.mlp,
            config.width,
            dropout=0.0,
            dtype=config.dtype,
            activation=exact_gelu,
            rngs=rngs,
        )

    def attend(
        self, x: Float[Array, "batch tokens width"], layer: Layer, inputs: AttentionInputs
    ) -> Float[Array, "batch tokens width"]:
        """The output of the attention, before it is added to the residual stream."""
        mask, angle = inputs.of(layer)
        normal = standardise(x.astype(jnp.float32), (-1,), self.eps) * layer.attention_scale
        normal = jnp.where(layer.is_first, x, normal.astype(x.dtype))
        return self.attention(normal, mask=mask, angle=angle)

    def __call__(
        self, x: Float[Array, "batch tokens width"], layer: Layer, inputs: AttentionInputs
    ) -> Float[Array, "batch tokens width"]:
        x = x + self.attend(x, layer, inputs)
        return x + self.mlp(self.mlp_norm(x))


class ModernBert(nnx.Module):
    """Maps token ids to the residual stream after `depth` layers, without a final norm.

    Values at padded positions are finite and meaningless. One scan runs both kinds of layers; they
    differ in the inputs of the scan (`Layer`). The first layer has no norm before its attention,
    so `attention_scales` has one row less than there are layers.
    """

    def __init__(self, config: ModernBertConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Embed(
            config.vocab_size,
            config.width,
            dtype=config.dtype,
            embedding_init=jax.nn.initializers.normal(0.02),
            embedding_metadata=parallel.axes("channels", "embed"),
            rngs=rngs,
        )
        self.embed_norm = LayerNorm(config.width, eps=config.eps, bias=False, rngs=rngs)
        self.attention_scales = nnx.Param(
            jnp.ones((config.depth - 1, config.width)), **parallel.axes("layers", "embed")
        )
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)

    def embeddings(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens width"]:
        """The residual stream before the first layer."""
        return self.embed_norm(self.embed(ids))

    def layers(self) -> Layer:
        """Inputs of all layers besides their weights, stacked."""
        number = jnp.arange(self.config.depth)
        scales = self.attention_scales[...]
        return Layer(
            attention_scale=jnp.concatenate([jnp.ones((1, self.config.width)), scales]),
            is_first=number == 0,
            is_global=number % self.config.global_every == 0,
        )

    def attention_inputs(self, mask: Bool[Array, "batch tokens"]) -> AttentionInputs:
        """Masks and angles for texts whose real tokens are True in `mask`."""
        config, tokens = self.config, mask.shape[1]
        position = np.arange(tokens)
        near = np.abs(position[:, None] - position[None, :]) <= config.window // 2
        angles = functools.partial(rope.angles, tokens, config.head_dim)
        keys = jnp.broadcast_to(mask[:, None, :], (mask.shape[0], tokens, tokens))
        return AttentionInputs(
            mask=jnp.stack([keys, keys & near]),
            angle=jnp.stack([angles(config.global_theta), angles(config.local_theta)]),
        )

    def __call__(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """`mask` is True at real tokens."""
        inputs = self.attention_inputs(mask)
        return scan_blocks(
            self.blocks,
            self.embeddings(ids),
            lambda block, x, layer: block(x, layer, inputs),
            axes=("batch", "tokens", "width"),
            dtype=self.config.dtype,
            per_layer=self.layers(),
        )
