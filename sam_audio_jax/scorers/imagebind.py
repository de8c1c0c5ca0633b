"""ImageBind's audio and vision towers, which embed sounds and videos in one space.

Paper: arXiv 2305.05665. Arithmetic: docs/scoring.md, "ImageBind".
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import (
    Checked,
    Depth,
    Finite,
    NonNegative,
    Positive,
    SampleRate,
    Seconds,
    Size,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import LayerNorm
from sam_audio_jax.nn.stack import scan_blocks, stacked
from sam_audio_jax.scorers import kaldi

TokenStream = Float[Array, "batch tokens width"]
Vectors = Float[Array, "batch output"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkConfig(Checked, where="imagebind.trunk"):
    """Sizes of one tower's transformer; the defaults are the vision tower's."""

    width: Size = 1280
    depth: Depth = 32
    heads: Size = 16
    mlp: Size = 5120
    extra_key: bool = False  # a learned key and value beside those of the tokens
    norm_in: bool = True  # a norm before the first block
    eps: Positive = 1e-6

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(
                f"imagebind.trunk.width={self.width} must be a multiple of "
                f"imagebind.trunk.heads={self.heads}"
            )


AUDIO = TrunkConfig(width=768, depth=12, heads=12, mlp=3072, extra_key=True, norm_in=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageBindConfig(Checked, where="imagebind"):
    """Inputs and sizes; the defaults are those of `imagebind_huge`."""

    vision: TrunkConfig = dataclasses.field(default_factory=TrunkConfig)
    audio: TrunkConfig = dataclasses.field(default_factory=lambda: AUDIO)
    output: Size = 1024

    clip_s: Seconds = 2.0  # of sound and of video
    audio_clips: Size = 3
    video_clips: Size = 5

    image_size: Size = 224  # pixels of a crop's side
    image_patch: Size = 14  # pixels of a patch's side
    clip_frames: Size = 2  # of a video clip; together they are one patch deep

    sample_rate: SampleRate = 16_000
    window: Size = 400  # samples
    hop: Size = 160  # samples
    transform: Size = 512  # samples of the Fourier transform
    bands: Size = 128
    low_hz: NonNegative = 20.0
    high_hz: Positive = 8_000.0
    spectrum_frames: Size = 204  # to which the log-mel of a clip is padded
    spectrum_mean: Finite = -4.268
    spectrum_deviation: Positive = 9.138
    audio_patch: Size = 16  # bands and frames
    audio_stride: Size = 10  # bands and frames

    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % self.image_patch:
            raise UserError(
                f"imagebind.image_size={self.image_size} must be a multiple of "
                f"imagebind.image_patch={self.image_patch}"
            )
        if self.audio_patch > min(self.bands, self.spectrum_frames):
            raise UserError(
                f"imagebind.audio_patch={self.audio_patch} must be at most "
                f"imagebind.bands={self.bands} and imagebind.spectrum_frames="
                f"{self.spectrum_frames}"
            )

    @property
    def clip_samples(self) -> int:
        """Samples of a clip of sound."""
        return int(self.clip_s * self.sample_rate)

    @property
    def image_tokens(self) -> int:
        """Patches of a crop."""
        return (self.image_size // self.image_patch) ** 2

    @property
    def audio_tokens(self) -> int:
        """Patches of a spectrum; they overlap."""
        rows, columns = (
            (size - self.audio_patch) // self.audio_stride + 1
            for size in (self.bands, self.spectrum_frames)
        )
        return rows * columns


class Block(nnx.Module):
    """Self-attention, then the MLP, both pre-normalised."""

    def __init__(self, config: TrunkConfig, *, dtype: str, rngs: nnx.Rngs):
        width, head_dim = config.width, config.width // config.heads
        self.attention_norm = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.attention = Attention(
            width,
            config.heads,
            head_dim,
            scale=head_dim**-0.5,
            qk_eps=None,
            bias=True,
            extra_key=config.extra_key,
            dtype=dtype,
            rngs=rngs,
        )
        self.mlp_norm = LayerNorm(width, eps=config.eps, rngs=rngs)
        self.mlp = Mlp(width, config.mlp, dtype=dtype, rngs=rngs)

    def __call__(self, x: TokenStream) -> TokenStream:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Trunk(nnx.Module):
    """From the patches of an input to a unit vector, that of a class token before them."""

    def __init__(
        self, config: TrunkConfig, tokens: int, output: int, *, dtype: str, rngs: nnx.Rngs
    ):
        self.dtype, width = dtype, config.width
        small = jax.nn.initializers.normal(0.02)
        self.class_token = nnx.Param(small(rngs.params(), (width,)), **parallel.axes("embed"))
        self.positions = nnx.Param(
            small(rngs.params(), (1 + tokens, width)), **parallel.axes("channels", "embed")
        )
        norm = functools.partial(LayerNorm, width, eps=config.eps, rngs=rngs)
        self.norm_in = norm() if config.norm_in else None
        self.blocks = stacked(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.depth, rngs
        )
        self.norm_out = norm()
        self.project = linear(width, output, ("embed", "channels"), dtype=dtype, rngs=rngs)

    def __call__(self, patches: TokenStream) -> Vectors:
        batch, _, width = patches.shape
        first = jnp.broadcast_to(self.class_token[...].astype(patches.dtype), (batch, 1, width))
        x = jnp.concatenate([first, patches], axis=1) + self.positions[...].astype(patches.dtype)
        x = x if self.norm_in is None else self.norm_in(x)
        x = scan_blocks(
            self.blocks,
            x,
            lambda block, x, _: block(x),
            axes=("batch", "tokens", "width"),
            dtype=self.dtype,
        )
        return unit(self.project(self.norm_out(x[:, 0])))


class ImageBind(nnx.Module):
    """Embeds clips of sound and crops of video frames as unit vectors of one space.

    A recording's vector is the mean over those of its clips or crops, brought to length 1 again;
    the dot product of a sound and a video says how well they fit.
    """

    def __init__(self, config: ImageBindConfig, *, rngs: nnx.Rngs):
        self.config = config
        sizes = {"output": config.output, "dtype": config.dtype, "rngs": rngs}
        width = config.vision.width
        voxels = 3 * config.clip_frames * config.image_patch**2
        self.image_patches = linear(
            voxels, width, ("channels", "embed"), dtype=config.dtype, rngs=rngs
        )
        self.vision = Trunk(config.vision, config.image_tokens, **sizes)
        width, side = config.audio.width, config.audio_patch
        init = jax.nn.initializers.lecun_normal(in_axis=(0, 1, 2))
        self.audio_patches = nnx.Param(
            init(rngs.params(), (side, side, 1, width)),
            **parallel.axes("window", "window", "channels", "embed"),
        )
        self.audio_norm = LayerNorm(width, rngs=rngs)
        self.audio = Trunk(config.audio, config.audio_tokens, **sizes)

    def spectra(
        self, wave: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
    ) -> Float[Array, "batch bands frames"]:
        """Normalised log-mel spectra of clips at `config.sample_rate`.

        The first `lengths` samples are sound. Frames that are not whole in it, and those that fill
        up the spectrum, are zeros before they are normalised, as in the reference.
        """
        config = self.config
        filters = kaldi.mel_triangles(
            config.sample_rate, config.transform, config.bands, config.low_hz, config.high_hz
        )
        log_mel = kaldi.log_mel(wave, config.window, config.hop, filters)
        log_mel = log_mel[:, : config.spectrum_frames]
        whole = (lengths[:, None] - config.window) // config.hop + 1
        log_mel = jnp.where((jnp.arange(log_mel.shape[1]) < whole)[..., None], log_mel, 0)
        rest = config.spectrum_frames - log_mel.shape[1]
        padded = jnp.pad(log_mel, ((0, 0), (0, rest), (0, 0)))
        return ((padded - config.spectrum_mean) / config.spectrum_deviation).swapaxes(1, 2)

    def encode_spectra(self, spectra: Float[Array, "batch bands frames"]) -> Vectors:
        """The unit vector of each clip."""
        dtype = self.config.dtype
        x = jax.lax.conv_general_dilated(
            spectra[..., None].astype(dtype),
            self.audio_patches[...].astype(dtype),
            (self.config.audio_stride,) * 2,
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.audio(self.audio_norm(x.reshape(len(x), -1, x.shape[-1])))

    def encode_crops(self, crops: Float[Array, "batch frames y x 3"]) -> Vectors:
        """The unit vector of each crop of the frames of a clip, as `views.crops` makes them."""
        side = self.config.image_patch
        batch, frames, height, width, _ = crops.shape
        rows, columns = height // side, width // side
        grid = crops.reshape(batch, frames, rows, side, columns, side, 3)
        patches = grid.transpose(0, 2, 4, 1, 3, 5, 6).reshape(batch, rows * columns, -1)
        return self.vision(self.image_patches(patches))


def unit(x: Float[Array, "*rows output"]) -> Float[Array, "*rows output"]:
    """Brings vectors to length 1, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
