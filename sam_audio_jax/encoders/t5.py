"""The T5 encoder, which encodes text prompts.

Paper: arXiv 1910.10683. Arithmetic: docs/prompt_encoders.md, "T5". The full-size models use the
frozen `t5-base`; small offline configs train the same module on bytes.
"""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Positive, PositiveCount, Range, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import RMSNorm
from sam_audio_jax.nn.stack import scan_blocks, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(Checked, where="text"):
    """Sizes of the encoder; the defaults are `t5-base`."""

    vocab_size: PositiveCount = 32128
    width: Size = 768
    head_dim: Size = 64  # may differ from width / heads
    heads: Size = 12
    mlp: Size = 3072
    # Layers; 0: a text is the vectors of its tokens as they are, from a table of word vectors,
    # whose lengths say how much a word matters.
    depth: Annotated[int, Range(0, 1_000)] = 12
    buckets: Size = 32  # of relative distances, for both directions together
    max_distance: PositiveCount = 128  # tokens; all longer distances share a bucket
    eps: Positive = 1e-6
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise UserError(
                f"text.buckets={self.buckets} must be a multiple of 4 "
                f"and text.max_distance={self.max_distance} above a quarter of it"
            )


def bucket(
    distance: Int[np.ndarray, "*shape"], buckets: int, max_distance: int
) -> Int[np.ndarray, "*shape"]:
    """Bucket of each signed distance (key - query): exact if near, logarithmic if far."""
    per_direction = buckets // 2
    exact = per_direction // 2  # distances below this have a bucket each
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    steps = ratio / np.float32(np.log(max_distance / exact)) * np.float32(per_direction - exact)
    logarithmic = np.minimum(per_direction - 1, exact + steps.astype(np.int32))
    first = np.where(distance > 0, per_direction, 0)
    return first + np.where(size < exact, size, logarithmic)


class FeedForward(nnx.Module):
    """`down(relu(up(x)))`, no biases."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        width, mlp, dtype = config.width, config.mlp, config.dtype
        self.up = linear(width, mlp, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.down = linear(mlp, width, ("mlp", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        return self.down(nnx.relu(self.up(x)))


class Block(nnx.Module):
    """Self-attention with a relative bias, then the feed-forward, both pre-normalised."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.width, eps=config.eps, rngs=rngs)
        self.attention = Attention(
            config.width,
            config.heads,
            config.head_dim,
            scale=1.0,  # T5 does not divide by sqrt(head_dim): its queries are initialised small
            qk_eps=None,
            dtype=config.dtype,
            query_init=jax.nn.initializers.normal((config.width * config.head_dim) ** -0.5),
            rngs=rngs,
        )
        self.mlp_norm = RMSNorm(config.width, eps=config.eps, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        mask: Bool[Array, "batch tokens"],
        bias: Float[Array, "heads tokens keys"],
    ) -> Float[Array, "batch tokens width"]:
        x = x + self.attention(self.attention_norm(x), mask=mask, bias=bias)
        return x + self.mlp(self.mlp_norm(x))


class T5Encoder(nnx.Module):
    """Maps token ids to the last hidden state after the final norm, at padded positions too.

    Without layers to the vectors of the tokens.
    """

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Embed(
            config.vocab_size,
            config.width,
            dtype=config.dtype,
            embedding_init=jax.nn.initializers.normal(1.0),
            embedding_metadata=parallel.axes("channels", "embed"),
            rngs=rngs,
        )
        if not config.depth:
            return
        self.distance_bias = nnx.Param(
            jax.nn.initializers.normal(config.width**-0.5)(
                rngs.params(), (config.buckets, config.heads)
            ),
            **parallel.axes("channels", "heads"),
        )
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)
        self.norm = RMSNorm(config.width, eps=config.eps, rngs=rngs)

    def position_bias(self, tokens: Any) -> Float[Array, "heads tokens tokens"]:
        """The bias that every block adds to its attention scores, float32.

        `tokens` is an int, or a size that is left open (docs/export.md).
        """
        config, most = self.config, self.config.max_distance  # longer ones share its bucket
        table = bucket(np.arange(-most, most + 1), config.buckets, most)
        numbers = np if isinstance(tokens, int) else jnp
        position = numbers.arange(tokens)
        distance = numbers.clip(position[None, :] - position[:, None], -most, most)
        index = numbers.asarray(table)[distance + most]
        return jnp.transpose(self.distance_bias[...][index], (2, 0, 1))

    def __call__(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch tokens width"]:
        x = self.embed(ids)
        if not self.config.depth:
            return x
        bias = self.position_bias(ids.shape[1])
        x = scan_blocks(
            self.blocks,
            x,
            lambda block, x, _: block(x, mask, bias),
            axes=("batch", "tokens", "width"),
            dtype=self.config.dtype,
        )
        return self.norm(x)
