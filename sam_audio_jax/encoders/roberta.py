"""The RoBERTa encoder, which embeds texts for CLAP.

Paper: arXiv 1907.11692. Arithmetic: docs/scoring.md, "CLAP".
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Count, Depth, Positive, PositiveCount, Range, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import LayerNorm
from sam_audio_jax.nn.stack import scan_blocks, stacked

TextStates = Float[Array, "batch tokens width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobertaConfig(Checked, where="roberta"):
    """Sizes of the encoder; the defaults are RoBERTa-base."""

    vocab_size: PositiveCount = 50_265
    width: Size = 768
    depth: Depth = 12
    heads: Size = 12
    mlp: Size = 3_072
    positions: Annotated[int, Range(2, 1_000_000)] = 514  # rows of the table
    padding_id: Count = 1  # of padding tokens; their position, too, and real ones count from it
    eps: Positive = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(
                f"roberta.width={self.width} must be a multiple of roberta.heads={self.heads}"
            )
        if self.padding_id >= min(self.vocab_size, self.positions - 1):
            raise UserError(
                f"roberta.padding_id={self.padding_id} must be below "
                f"roberta.vocab_size={self.vocab_size} and leave a row of "
                f"roberta.positions={self.positions} for a token"
            )

    @property
    def longest(self) -> int:
        """TextStates of the longest text that has a position for each."""
        return self.positions - self.padding_id - 1


class Block(nnx.Module):
    """Self-attention, then the feed-forward; each sum is normalised (post-norm)."""

    def __init__(self, config: RobertaConfig, *, rngs: nnx.Rngs):
        width, head_dim = config.width, config.width // config.heads
        self.attention = Attention(
            width,
            config.heads,
            head_dim,
            scale=head_dim**-0.5,
            qk_eps=None,
            bias=True,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.attention_norm = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.mlp = Mlp(width, config.mlp, dtype=config.dtype, rngs=rngs)
        self.mlp_norm = LayerNorm(width, eps=config.eps, rngs=rngs)

    def __call__(self, x: TextStates, mask: Bool[Array, "batch tokens"]) -> TextStates:
        x = self.attention_norm(x + self.attention(x, mask=mask))
        return self.mlp_norm(x + self.mlp(x))


def _table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    normal = 0.02 * jax.random.normal(rngs.params(), (rows, width))
    return nnx.Param(normal, **parallel.axes("channels", "embed"))


class Roberta(nnx.Module):
    """Maps token ids to hidden states, and the first of them to one vector for the text.

    Values at padded positions are finite and meaningless; they change no other value.
    """

    def __init__(self, config: RobertaConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.words = _table(config.vocab_size, config.width, rngs)
        self.positions = _table(config.positions, config.width, rngs)
        self.token_type = _table(1, config.width, rngs)  # there is one type, added to every token
        self.embed_norm = LayerNorm(config.width, eps=config.eps, rngs=rngs)
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)
        self.pool = linear(
            config.width,
            config.width,
            ("embed", "mlp"),
            dtype=config.dtype,
            bias=True,
            rngs=rngs,
        )

    def embeddings(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> TextStates:
        """Word, position and type, normalised; the first real token has position padding_id + 1.

        Raises UserError for more tokens than there are positions.
        """
        config = self.config
        if ids.shape[1] > config.longest:
            raise UserError(
                f"{ids.shape[1]} tokens are more than RoBERTa has positions for: {config.longest}"
            )
        position = jnp.cumsum(mask, axis=1) * mask + config.padding_id
        x = self.words[...][ids] + self.positions[...][position] + self.token_type[...][0]
        return self.embed_norm(x).astype(config.dtype)

    def __call__(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> TextStates:
        """The hidden states after the last layer; `mask` is True at real tokens."""
        return scan_blocks(
            self.blocks,
            self.embeddings(ids, mask),
            lambda block, x, _: block(x, mask),
            axes=("batch", "tokens", "width"),
            dtype=self.config.dtype,
        )

    def pooled(self, hidden: TextStates) -> Float[Array, "batch width"]:
        """`tanh(W h + b)` of the first token, in float32."""
        return jnp.tanh(self.pool(hidden[:, 0]).astype(jnp.float32))
