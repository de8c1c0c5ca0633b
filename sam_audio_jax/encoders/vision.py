"""The Perception Encoder's image tower, which encodes the frames of masked video.

Paper: arXiv 2504.13181. Arithmetic: docs/prompt_encoders.md, "Perception Encoder". The tower is
frozen, and each frame gives one vector, computed once per separation. Batches of frames go through
it in `clips.py`.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Finite, Positive, Range, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import LayerNorm
from sam_audio_jax.nn.stack import scan_blocks, stacked

THETA = 10_000.0  # base of the rotary frequencies
POOL_MLP = 4  # hidden width of the pool's MLP over its outer width; not that of the blocks

Images = Float[Array, "batch y x 3"]
Tokens = Float[Array, "batch tokens width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(Checked, where="vision"):
    """Sizes of the tower; the defaults are the released PE-Core-L14-336."""

    # Pixels per side; its patch grid has the learned positions.
    image_size: Annotated[int, Range(1, 100_000)] = 336
    patch_size: Size = 14  # pixels
    width: Size = 1024  # residual stream
    depth: Depth = 24
    heads: Size = 16
    mlp: Size = 4096
    output: Size = 1024  # features of a frame
    class_token: bool = True  # before the patches
    layer_scale: Finite | None = None  # initial value of the gains; PE-Core has no gains
    pool_heads: Size = 8  # of the attention that pools all tokens
    eps: Positive = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.image_size < 1 or self.image_size % self.patch_size:
            raise UserError(
                f"vision.image_size={self.image_size} must be a multiple of "
                f"vision.patch_size={self.patch_size}"
            )
        if self.width % (4 * self.heads):  # pairs along both axes
            raise UserError(
                f"vision.width={self.width} must be a multiple of 4 * vision.heads={self.heads}"
            )
        if self.width % self.pool_heads:
            raise UserError(
                f"vision.width={self.width} must be a multiple of "
                f"vision.pool_heads={self.pool_heads}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of the native image."""
        return self.image_size // self.patch_size


def grid_angles(
    rows: int, columns: int, head_dim: int, *, class_token: bool
) -> Float[np.ndarray, "tokens pairs"]:
    """Rotary angles of all tokens: the first half of the pairs by column, the second by row.

    With a class token, patches count from 1 and the class token has angle 0. Positions of grids
    larger than the native one are not rescaled: they extrapolate.
    """
    first = int(class_token)  # tokens before the patches
    table = rope.angles(max(rows, columns) + first, head_dim // 2, THETA)
    row, column = np.indices((rows, columns)).reshape(2, -1) + first
    return np.pad(np.concatenate([table[column], table[row]], axis=1), ((first, 0), (0, 0)))


class LayerScale(nnx.Module):
    """A learned gain for each channel."""

    def __init__(self, width: int, value: float):
        self.gain = nnx.Param(jnp.full(width, value), **parallel.axes("embed"))

    def __call__(self, x: Tokens) -> Tokens:
        return x * self.gain[...].astype(x.dtype)


def _identity(x: Tokens) -> Tokens:
    return x


class Block(nnx.Module):
    """Self-attention with 2D rotary positions, then the MLP, both pre-normalised."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        width, head_dim = config.width, config.width // config.heads
        norm = functools.partial(LayerNorm, width, eps=config.eps, rngs=rngs)
        self.attention_norm = norm()
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
        self.mlp_norm = norm()
        self.mlp = Mlp(width, config.mlp, dtype=config.dtype, rngs=rngs)
        scale = config.layer_scale
        self.attention_scale = _identity if scale is None else LayerScale(width, scale)
        self.mlp_scale = _identity if scale is None else LayerScale(width, scale)

    def __call__(self, x: Tokens, angle: Float[np.ndarray, "tokens pairs"]) -> Tokens:
        x = x + self.attention_scale(self.attention(self.attention_norm(x), angle=angle))
        return x + self.mlp_scale(self.mlp(self.mlp_norm(x)))


class AttentionPool(nnx.Module):
    """Attention of one learned query over all tokens, then an MLP with a residual connection.

    The query is not normalised and there is no residual connection around the attention.
    """

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        width = config.width
        probe = jax.random.normal(rngs.params(), (1, width)) * width**-0.5
        self.probe = nnx.Param(probe, **parallel.axes("channels", "embed"))
        self.attention = Attention(
            width,
            config.pool_heads,
            width // config.pool_heads,
            scale=(width // config.pool_heads) ** -0.5,
            qk_eps=None,
            bias=True,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.mlp = Mlp(width, POOL_MLP * width, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Tokens) -> Float[Array, "batch width"]:
        probe = jnp.broadcast_to(self.probe[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        pooled = self.attention(probe, x)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class VisionEncoder(nnx.Module):
    """Encodes each image as one vector.

    Images of any size work: learned positions are resized, rotary positions extrapolate.
    """

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, patch = config.width, config.patch_size
        self.patch = linear(
            3 * patch**2, width, ("channels", "embed"), dtype=config.dtype, rngs=rngs
        )
        tokens = config.grid**2 + config.class_token
        small = jax.nn.initializers.normal(width**-0.5)
        self.positions = nnx.Param(
            small(rngs.params(), (tokens, width)), **parallel.axes("channels", "embed")
        )
        self.class_token = (
            nnx.Param(small(rngs.params(), (width,)), **parallel.axes("embed"))
            if config.class_token
            else None
        )
        self.norm_in = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)
        self.norm_out = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.pool = AttentionPool(config, rngs=rngs)
        self.project = linear(
            width, config.output, ("embed", "channels"), dtype=config.dtype, rngs=rngs
        )

    def patches(self, images: Images) -> Float[Array, "batch rows columns width"]:
        """Embeds the patches; pixels beyond the last whole patch are cropped.

        Raises UserError for images smaller than a patch.
        """
        patch = self.config.patch_size
        batch, height, width, colours = images.shape
        rows, columns = height // patch, width // patch
        if not rows or not columns:
            raise UserError(f"images of {width} x {height} pixels are smaller than a patch")
        cropped = images[:, : rows * patch, : columns * patch]
        grid = cropped.reshape(batch, rows, patch, columns, patch, colours)
        return self.patch(grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1))

    def positions_at(self, rows: int, columns: int) -> Float[Array, "tokens width"]:
        """The learned positions, resized bilinearly for any grid but the native one."""
        table, first, side = self.positions[...], int(self.config.class_token), self.config.grid
        if (rows, columns) == (side, side):
            return table
        native = table[first:].reshape(side, side, -1)
        shape = (rows, columns, native.shape[-1])
        resized = jax.image.resize(native, shape, "bilinear", antialias=False)
        return jnp.concatenate([table[:first], resized.reshape(rows * columns, -1)])

    def embed(self, images: Images) -> Tokens:
        """The residual stream before the first block."""
        x = self.patches(images)
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows * columns, width)
        if self.class_token is not None:
            first = self.class_token[...].astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, width)), x], axis=1)
        return self.norm_in(x + self.positions_at(rows, columns).astype(x.dtype))

    def tokens(self, images: Images) -> Tokens:
        """The residual stream after the last block and norm; a class token comes first."""
        config, patch = self.config, self.config.patch_size
        angle = grid_angles(
            images.shape[1] // patch,
            images.shape[2] // patch,
            config.width // config.heads,
            class_token=config.class_token,
        )
        x = scan_blocks(
            self.blocks,
            self.embed(images),
            lambda block, x, _: block(x, angle),
            axes=("batch", "tokens", "width"),
            dtype=config.dtype,
        )
        return self.norm_out(x)

    def encode(self, images: Images, *, normalize: bool = True) -> Float32[Array, "batch output"]:
        """Encodes images of values in -1..1 (`clips.pixels`), by default as unit vectors."""
        vector = self.project(self.pool(self.tokens(images))).astype(jnp.float32)
        if not normalize:
            return vector
        length = jnp.linalg.norm(vector, axis=-1, keepdims=True)
        return vector / jnp.maximum(length, 1e-12)
