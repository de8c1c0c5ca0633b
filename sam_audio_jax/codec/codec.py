"""DAC-VAE: 25 latent frames a second of 48 kHz audio (arXiv 2512.18099; `docs/codec.md`)."""

import dataclasses
import math
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax.bounds import Checked, Finite, Positive, Range, SampleRate, Size
from sam_audio_jax.codec.decoder import Decoder
from sam_audio_jax.codec.encoder import Encoder
from sam_audio_jax.codec.watermark import Watermark
from sam_audio_jax.config import misfit
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import WeightNormConv1d


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecConfig(Checked, where="codec"):
    """Sizes of the codec; the defaults are those of the released one."""

    sample_rate: SampleRate = 48_000
    encoder_dim: Size = 64  # channels after the first convolution
    encoder_rates: tuple[Size, ...] = (2, 8, 10, 12)  # strides; their product is the hop
    latent_dim: Size = 1024  # width between encoder, bottleneck and decoder
    decoder_dim: Size = 1536
    decoder_rates: tuple[Size, ...] = (12, 10, 8, 2)
    codebook_dim: Size = 128  # channels of a latent frame, the width that the separator sees
    mean: Finite = 0.0  # latents are normalised by (z - mean) / std; the released codec has 0 and 1
    std: Positive = 1.0
    watermark_rates: tuple[Size, ...] = (8, 5, 4, 2)  # one for each decoder block; () has no mark
    watermark_code: Size = 128  # channels of the code that carries the message
    watermark_bits: Annotated[int, Range(1, 32)] = 16
    watermark_lstm_depth: Annotated[int, Range(1, 100)] = 2

    def __post_init__(self):
        super().__post_init__()
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise UserError(
                f"codec.decoder_rates={self.decoder_rates} must have the product of "
                f"codec.encoder_rates={self.encoder_rates}"
            )
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise UserError(
                f"codec.decoder_dim={self.decoder_dim} must be a multiple of "
                f"{2 ** len(self.decoder_rates)}: each decoder block halves it"
            )
        if self.watermark_rates and len(self.watermark_rates) != len(self.decoder_rates):
            raise UserError(
                f"codec.watermark_rates={self.watermark_rates} must name a rate for each of "
                f"{len(self.decoder_rates)} decoder blocks, or be empty"
            )

    @property
    def hop(self) -> int:
        """Samples in a latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def frame_rate(self) -> float:
        """Latent frames in a second."""
        return self.sample_rate / self.hop

    def differences(self, other: "CodecConfig", *, watermark: bool) -> str:
        """The sizes in which `other` differs, for a message; "" if its weights fit this config.

        The scale of the latents (`mean`, `std`) is not compared, the watermark only on request.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("mean", "std")]
        if not watermark:
            names = [name for name in names if not name.startswith("watermark_")]
        return misfit(self, other, names)

    def frames(self, samples: int) -> int:
        """Latent frames that cover `samples`."""
        return frame_count(samples, self.hop)

    def watermark_widths(self) -> tuple[int, ...]:
        """Channels of the watermark's stages, from the waveform's side to the code's."""
        depth = len(self.decoder_rates)
        return tuple((self.decoder_dim // 2**i) // 3 for i in range(depth, -1, -1))


class Codec(nnx.Module):
    """Encoder, VAE bottleneck, decoder and, if configured, the watermark. Float32 throughout."""

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs):
        self.config = config
        c = config
        self.encoder = Encoder(c.encoder_dim, c.encoder_rates, c.latent_dim, rngs=rngs)
        self.in_proj = WeightNormConv1d(
            c.latent_dim, 2 * c.codebook_dim, 1, zero_bias=False, rngs=rngs
        )
        self.out_proj = WeightNormConv1d(
            c.codebook_dim, c.latent_dim, 1, zero_bias=False, rngs=rngs
        )
        self.decoder = Decoder(c.latent_dim, c.decoder_dim, c.decoder_rates, rngs=rngs)
        self.watermark = nnx.data(make_watermark(c, rngs) if c.watermark_rates else None)

    def moments(
        self, wave: Float[Array, "batch samples"]
    ) -> tuple[Float[Array, "batch frames channels"], Float[Array, "batch frames channels"]]:
        """Mean and standard deviation of the posterior, before any normalisation."""
        mean, scale = jnp.split(self.in_proj(self.encoder(wave[..., None])), 2, axis=-1)
        return mean, nnx.softplus(scale) + 1e-4

    def encode(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames channels"]:
        """The posterior's mean, as SAM Audio's latents are not sampled, normalised.

        `wave` must be whole frames (see `pad_to_hop`).
        """
        mean, _ = self.moments(wave)
        return (mean - self.config.mean) / self.config.std

    def decode(
        self,
        latents: Float[Array, "batch frames channels"],
        *,
        watermark: Int[Array, "batch bits"] | None = None,
    ) -> Float[Array, "batch samples"]:
        """The clean wave, or with a `watermark` the marked one that the reference returns."""
        raw = latents * self.config.std + self.config.mean
        wave = self.decoder(self.out_proj(raw))
        if watermark is not None:
            wave = self.mark(wave, watermark)
        return wave[..., 0]

    def mark(
        self, wave: Float[Array, "batch samples 1"], message: Int[Array, "batch bits"]
    ) -> Float[Array, "batch samples 1"]:
        """Adds the watermark; not clipped afterwards, as in the reference."""
        if self.watermark is None:
            raise UserError("this codec has no watermark (codec.watermark_rates is empty)")
        return wave + self.watermark.strength * self.watermark(wave, message)


def make_watermark(config: CodecConfig, rngs: nnx.Rngs) -> Watermark:
    """The watermark's network: its widths are a third of the decoder's."""
    return Watermark(
        config.watermark_widths(),
        config.watermark_rates[::-1],
        code=config.watermark_code,
        bits=config.watermark_bits,
        lstm_depth=config.watermark_lstm_depth,
        rngs=rngs,
    )


def frame_count(samples: int, hop: int) -> int:
    """Latent frames that cover `samples`; the last one may be partly padding."""
    return -(-samples // hop)


def pad_to_hop(wave: np.ndarray, hop: int) -> np.ndarray:
    """Reflects the end of `(..., samples)` up to a whole number of frames.

    A wave that is too short to be reflected (the reference raises there) gets zeros instead. See
    docs/codec.md, "Padding and lengths".
    """
    short = -wave.shape[-1] % hop
    if not short:
        return wave
    lead = [(0, 0)] * (wave.ndim - 1)
    if short >= wave.shape[-1]:
        return np.pad(wave, [*lead, (0, short)])
    return np.pad(wave, [*lead, (0, short)], mode="reflect")
