"""The ModernBERT encoder that reads texts for the span predictor and the judge.

Arithmetic: docs/prompt_encoders.md, "ModernBERT". Released models use the first 22 layers of
ModernBERT-large, without its final norm.
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
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.embed import GatedProjection
from sam_audio_jax.nn.norm import LayerNorm, standardise


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBertConfig:
    """Sizes of the encoder; the defaults are the part of ModernBERT-large that is used."""

    vocab_size: int = 50368
    width: int = 1024
    depth: int = 22  # layers that are run; later ones of a checkpoint are not built
    heads: int = 16
    mlp: int = 2624
    window: int = 128  # tokens; local layers see half of it to each side
    global_every: int = 3  # layers 0, 3, 6, ... see all tokens
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0
    eps: float = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        for name in ("vocab_size", "width", "depth", "heads", "mlp", "global_every"):
            if getattr(self, name) < 1:
                raise UserError(f"text.{name}={getattr(self, name)} must be at least 1")
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
    """What one layer is told besides its weights; stacked over layers, input of the scan."""

    attention_scale: Float[Array, "*layers width"]  # of the norm before the attention
    first: Bool[Array, "*layers"]  # the first layer has no such norm
    everywhere: Bool[Array, "*layers"]  # a global layer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """What a kind of layer sees, global then local."""

    mask: Bool[Array, "kinds batch tokens keys"]
    angle: Float[Array, "kinds tokens pairs"]

    def of(self, layer: Layer) -> tuple[Bool[Array, "b tokens keys"], Float[Array, "tokens pairs"]]:
        return (
            jnp.where(layer.everywhere, self.mask[0], self.mask[1]),
            jnp.where(layer.everywhere, self.angle[0], self.angle[1]),
        )


def exact_gelu(x: Array) -> Array:
    """With the error function, not its tanh approximation."""
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
        self, x: Float[Array, "batch tokens width"], layer: Layer, view: View
    ) -> Float[Array, "batch tokens width"]:
        mask, angle = view.of(layer)
        normal = standardise(x.astype(jnp.float32), (-1,), self.eps) * layer.attention_scale
        normal = jnp.where(layer.first, x, normal.astype(x.dtype))
        return self.attention(normal, mask=mask, angle=angle)

    def __call__(
        self, x: Float[Array, "batch tokens width"], layer: Layer, view: View
    ) -> Float[Array, "batch tokens width"]:
        x = x + self.attend(x, layer, view)
        return x + self.mlp(self.mlp_norm(x))


class ModernBert(nnx.Module):
    """Token ids to the residual stream after `depth` layers, which no norm follows.

    At padded positions the values are finite and mean nothing. One scan runs both kinds of layers:
    what tells them apart are its inputs. The first layer's missing norm has no parameter.
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

        @nnx.split_rngs(splits=config.depth)
        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
        def stack(rngs):
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)

    def embeddings(self, ids: Int[Array, "batch tokens"]) -> Float[Array, "batch tokens width"]:
        """The residual stream before the first layer."""
        return self.embed_norm(self.embed(ids))

    def layers(self) -> Layer:
        number = jnp.arange(self.config.depth)
        scales = self.attention_scales[...]
        return Layer(
            attention_scale=jnp.concatenate([jnp.ones((1, self.config.width)), scales]),
            first=number == 0,
            everywhere=number % self.config.global_every == 0,
        )

    def view(self, mask: Bool[Array, "batch tokens"]) -> View:
        config, tokens = self.config, mask.shape[1]
        place = np.arange(tokens)
        near = np.abs(place[:, None] - place[None, :]) <= config.window // 2
        angles = functools.partial(rope.angles, tokens, config.head_dim)
        keys = jnp.broadcast_to(mask[:, None, :], (mask.shape[0], tokens, tokens))
        return View(
            mask=jnp.stack([keys, keys & near]),
            angle=jnp.stack([angles(config.global_theta), angles(config.local_theta)]),
        )

    def __call__(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        """`mask` is True at real tokens."""
        view = self.view(mask)
        graph, blocks = nnx.split(self.blocks)

        def body(x, scanned):
            weights, layer = scanned
            return nnx.merge(graph, weights)(x, layer, view), None

        return jax.lax.scan(body, self.embeddings(ids), (nnx.as_pure(blocks), self.layers()))[0]
