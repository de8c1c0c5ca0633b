"""HTSAT, a Swin transformer over a folded log-mel spectrogram: the audio tower of CLAP.

Papers: arXiv 2202.00874, arXiv 2103.14030. Arithmetic: docs/scoring.md, "CLAP". The network is
frozen: its batch norm has stored statistics.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Positive, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import FrozenBatchNorm, LayerNorm
from sam_audio_jax.nn.stack import scan_blocks, stacked

OTHER_REGION = -100.0  # added to scores between regions that the cyclic shift made neighbours
SHARPNESS = -0.75  # `a` of the cubic kernel

Grid = Float[Array, "batch rows columns width"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HtsatConfig(Checked, where="htsat"):
    """Sizes of the tower; the defaults are HTSAT-tiny."""

    mels: Size = 64
    image: Size = 256  # pixels on a side of the folded spectrogram
    patch: Size = 4  # pixels on a side
    width: Size = 96  # of the first stage; each later one is twice as wide
    depths: tuple[Depth, ...] = (2, 2, 6, 2)
    heads: tuple[Size, ...] = (4, 8, 16, 32)
    window: Size = 8  # patches on a side; attention stays in windows
    mlp_ratio: Size = 4
    eps: Positive = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if not self.depths or len(self.depths) != len(self.heads):
            raise UserError(
                f"htsat.depths={self.depths} and htsat.heads={self.heads} must be as long as each "
                "other: one number for each stage"
            )
        if self.image % self.mels:
            raise UserError(
                f"htsat.image={self.image} must be a multiple of htsat.mels={self.mels}"
            )
        smallest = self.patch * self.window * 2 ** (len(self.depths) - 1)
        if self.image % smallest:
            raise UserError(
                f"htsat.image={self.image} must be a multiple of {smallest}: windows of "
                f"{self.window} patches of {self.patch} pixels, halved by each stage after the "
                "first"
            )
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise UserError(f"htsat: a stage of width {width} cannot have {heads} heads")

    @property
    def quarters(self) -> int:
        """Into how many parts, stacked along frequency, time is folded; 4 in released models."""
        return self.image // self.mels

    @property
    def frames(self) -> int:
        """Frames of the spectrogram after it is stretched in time."""
        return self.image * self.quarters

    @property
    def sides(self) -> tuple[int, ...]:
        """Patches on a side of the grid, by stage."""
        return tuple(self.image // self.patch // 2**stage for stage in range(len(self.depths)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels, by stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


@functools.cache
def stretch_matrix(size_in: int, size_out: int) -> Float[np.ndarray, "size_out size_in"]:
    """Bicubic interpolation whose ends are the first and last samples, four taps a row.

    As in the reference the positions are float32, which moves stages by up to 1e-3.
    """
    step = np.float32(size_in - 1) / np.float32(max(size_out - 1, 1))
    position = step * np.arange(size_out, dtype=np.float32)
    first = np.floor(position)
    matrix = np.zeros((size_out, size_in))
    a = SHARPNESS
    for tap in range(-1, 3):
        d = np.abs(np.float64(position - first) - tap)
        near = ((a + 2) * d - (a + 3)) * d**2 + 1
        far = ((d - 5) * d + 8) * d * a - 4 * a
        index = np.clip(first.astype(int) + tap, 0, size_in - 1)  # the border is repeated
        np.add.at(matrix, (np.arange(size_out), index), np.where(d <= 1, near, far))
    return matrix.astype(np.float32)


@functools.cache
def pair_index(window: int) -> Int[np.ndarray, "cells keys"]:
    """The row of the table of position biases for each query and key of a window."""
    row, column = np.divmod(np.arange(window**2), window)
    rows, columns = (x[:, None] - x[None, :] + window - 1 for x in (row, column))
    return rows * (2 * window - 1) + columns


@functools.cache
def region_bias(side: int, window: int) -> Float[np.ndarray, "windows cells keys"]:
    """What a shifted block adds to scores: `OTHER_REGION` where regions differ.

    The shift by half a window wraps rows and columns around, so that the last window along each
    axis holds patches from both ends.
    """
    cell = np.arange(side)
    cut = (cell >= side - window).astype(int) + (cell >= side - window // 2)
    region = _windows(3 * cut[:, None] + cut[None, :], side, window)
    return np.where(region[:, :, None] == region[:, None, :], 0, OTHER_REGION).astype(np.float32)


def _windows(grid: np.ndarray, side: int, window: int) -> np.ndarray:
    count = side // window
    parts = grid.reshape(count, window, count, window).swapaxes(1, 2)
    return parts.reshape(count**2, window**2)


class Block(nnx.Module):
    """Attention in windows, then the feed-forward, both pre-normalised."""

    def __init__(self, config: HtsatConfig, stage: int, *, rngs: nnx.Rngs):
        width, heads = config.widths[stage], config.heads[stage]
        head_dim = width // heads
        self.side, self.window = config.sides[stage], config.window
        norm = functools.partial(LayerNorm, width, eps=config.eps, rngs=rngs)
        self.attention_norm = norm()
        self.attention = Attention(
            width,
            heads,
            head_dim,
            scale=head_dim**-0.5,
            qk_eps=None,
            bias=True,
            dtype=config.dtype,
            rngs=rngs,
        )
        pairs = (2 * config.window - 1) ** 2
        table = 0.02 * jax.random.normal(rngs.params(), (pairs, heads))
        self.position_bias = nnx.Param(table, **parallel.axes("vector", "heads"))
        self.mlp_norm = norm()
        self.mlp = Mlp(width, config.mlp_ratio * width, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Grid, shift: Int[Array, ""] | np.integer) -> Grid:
        """`shift` is half a window, or 0."""
        moved = jnp.roll(self.attention_norm(x), -shift, (1, 2))
        mixed = self._merged(self._attend(self._split(moved), shift))
        x = x + jnp.roll(mixed, shift, (1, 2))
        return x + self.mlp(self.mlp_norm(x))

    def _attend(
        self, x: Float[Array, "batch windows cells width"], shift: Int[Array, ""] | np.integer
    ) -> Float[Array, "batch windows cells width"]:
        """Attention of each window by itself."""
        near = self.position_bias[...][pair_index(self.window)].transpose(2, 0, 1)
        regions = region_bias(self.side, self.window)[:, None]
        bias = near + jnp.where(shift > 0, regions, 0)

        def attend(cells: Array, bias: Array) -> Array:
            return self.attention(cells, bias=bias)

        return jax.vmap(attend, in_axes=(1, 0), out_axes=1)(x, bias)

    def _split(self, x: Grid) -> Float[Array, "batch windows cells width"]:
        count, size, width = self.side // self.window, self.window, x.shape[-1]
        parts = x.reshape(-1, count, size, count, size, width).swapaxes(2, 3)
        return parts.reshape(-1, count**2, size**2, width)

    def _merged(self, x: Float[Array, "batch windows cells width"]) -> Grid:
        count, size, width = self.side // self.window, self.window, x.shape[-1]
        parts = x.reshape(-1, count, count, size, size, width).swapaxes(2, 3)
        return parts.reshape(-1, self.side, self.side, width)


class Merge(nnx.Module):
    """Four neighbouring patches become one of twice the width."""

    def __init__(self, config: HtsatConfig, stage: int, *, rngs: nnx.Rngs):
        width = config.widths[stage]
        self.norm = LayerNorm(4 * width, eps=config.eps, rngs=rngs)
        self.reduce = linear(4 * width, 2 * width, ("mlp", "embed"), dtype=config.dtype, rngs=rngs)

    def __call__(self, x: Grid) -> Float[Array, "batch rows_out columns_out width_out"]:
        batch, side, _, width = x.shape
        pairs = x.reshape(batch, side // 2, 2, side // 2, 2, width)
        fours = pairs.transpose(0, 1, 3, 4, 2, 5)  # of the four the rows change fastest
        return self.reduce(self.norm(fours.reshape(batch, side // 2, side // 2, -1)))


class Htsat(nnx.Module):
    """Maps log-mel spectrograms to one vector each."""

    def __init__(self, config: HtsatConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.norm_in = FrozenBatchNorm(config.mels, eps=config.eps)
        self.patches = linear(
            config.patch**2,
            config.width,
            ("channels", "embed"),
            dtype=config.dtype,
            bias=True,
            rngs=rngs,
        )
        norm = functools.partial(LayerNorm, eps=config.eps, rngs=rngs)
        self.patch_norm = norm(config.width)
        self.stages = nnx.List(
            [self._blocks(stage, depth, rngs) for stage, depth in enumerate(config.depths)]
        )
        between = range(len(config.depths) - 1)
        self.merges = nnx.List([Merge(config, stage, rngs=rngs) for stage in between])
        self.norm_out = norm(config.widths[-1])

    def image(self, log_mel: Float[Array, "batch frames mels"]) -> Float[Array, "batch rows side"]:
        """Normalises, stretches time to `config.frames` and folds it.

        Row `r * mels + f` and column `u` hold band `f` of frame `r * side + u`. Raises UserError
        for more frames.
        """
        config, frames = self.config, log_mel.shape[1]
        if frames > config.frames:
            raise UserError(f"{frames} frames are too many for HTSAT: at most {config.frames}")
        stretch = stretch_matrix(frames, config.frames)
        x = jnp.einsum("of,bfm->bom", stretch, self.norm_in(log_mel), precision="highest")
        folded = x.reshape(-1, config.quarters, config.image, config.mels).swapaxes(2, 3)
        return folded.reshape(-1, config.image, config.image)

    def embed_patches(self, image: Float[Array, "batch side side"]) -> Grid:
        """The first grid of patches."""
        side, patch = self.config.sides[0], self.config.patch
        parts = image.reshape(-1, side, patch, side, patch).swapaxes(2, 3)
        patches = parts.reshape(-1, side, side, patch**2).astype(self.config.dtype)
        return self.patch_norm(self.patches(patches))

    def run_stage(
        self, stage: int, x: Grid
    ) -> Float[Array, "batch rows_out columns_out width_out"]:
        """Blocks of one width, every second one shifted; all but the last stage merge patches."""
        config = self.config
        shift = config.window // 2 if config.sides[stage] > config.window else 0
        x = scan_blocks(
            self.stages[stage],
            x,
            lambda block, x, shift: block(x, shift),
            axes=("batch", "tokens", "tokens", "width"),
            dtype=config.dtype,
            per_layer=np.arange(config.depths[stage], dtype=np.int32) % 2 * np.int32(shift),
        )
        return self.merges[stage](x) if stage < len(self.merges) else x

    def _blocks(self, stage: int, depth: int, rngs: nnx.Rngs) -> Block:
        return stacked(lambda rngs: Block(self.config, stage, rngs=rngs), depth, rngs)

    def pool(self, x: Grid) -> Float[Array, "batch width"]:
        """The mean over the last grid, normalised before."""
        return jnp.mean(self.norm_out(x).astype(jnp.float32), axis=(1, 2))

    def __call__(self, log_mel: Float[Array, "batch frames mels"]) -> Float[Array, "batch width"]:
        x = self.embed_patches(self.image(log_mel))
        for stage in range(len(self.config.depths)):
            x = self.run_stage(stage, x)
        return self.pool(x)
