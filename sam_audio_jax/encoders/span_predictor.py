"""PE-A-Frame: which frames of a recording hold the sound that a text names.

Paper: arXiv 2512.19687. Arithmetic: docs/prompt_encoders.md, "PE-A-Frame".
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.codec.encoder import Encoder
from sam_audio_jax.encoders.modernbert import ModernBert, ModernBertConfig
from sam_audio_jax.encoders.peav import Peav, PeavConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import PlainConv1d
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import LayerNorm

HEAD_EPS = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanPredictorConfig:
    """Sizes of both towers; the defaults are pe-a-frame-large's."""

    audio: PeavConfig = dataclasses.field(default_factory=PeavConfig)
    text: ModernBertConfig = dataclasses.field(default_factory=ModernBertConfig)
    channels: int = 128  # of the codec's latents
    embed: int = 1024  # width in which frames and texts are compared
    sample_rate: int = 48_000
    encoder_dim: int = 64  # of its own codec encoder: channels after the first convolution
    encoder_rates: tuple[int, ...] = (2, 8, 10, 12)  # strides; their product is the hop
    waves: bool = False  # whether it holds that encoder; inside SAM Audio the codec gives latents

    def __post_init__(self):
        for name in ("channels", "embed", "sample_rate", "encoder_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"spans.{name}={getattr(self, name)} must be at least 1")
        if self.hop < 1:
            raise UserError(f"spans.encoder_rates={self.encoder_rates} must be at least 1")

    @property
    def hop(self) -> int:
        """Samples in a frame."""
        return math.prod(self.encoder_rates)


class WaveEncoder(nnx.Module):
    """The mean of the codec's posterior, by a copy of its encoder without weight norm."""

    def __init__(self, config: SpanPredictorConfig, *, rngs: nnx.Rngs):
        width = config.encoder_dim * 2 ** len(config.encoder_rates)
        self.encoder = Encoder(
            config.encoder_dim, config.encoder_rates, width, conv=PlainConv1d, rngs=rngs
        )
        self.in_proj = PlainConv1d(width, 2 * config.channels, 1, rngs=rngs)

    def __call__(
        self, wave: Float[Array, "batch samples"]
    ) -> Float[Array, "batch frames channels"]:
        """Samples: whole frames (`codec.pad_to_hop`)."""
        return jnp.split(self.in_proj(self.encoder(wave[..., None])), 2, axis=-1)[0]


class Head(nnx.Module):
    """`project(norm(x))`; the result is not brought to length 1."""

    def __init__(self, width: int, embed: int, *, dtype: str, rngs: nnx.Rngs):
        self.norm = LayerNorm(width, eps=HEAD_EPS, rngs=rngs)
        self.project = linear(width, embed, ("embed", "mlp"), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows embed"]:
        return self.project(self.norm(x))


class SpanPredictor(nnx.Module):
    """Latents and texts to a logit for every frame: item b is scored against text b."""

    def __init__(self, config: SpanPredictorConfig, *, rngs: nnx.Rngs):
        self.config = config
        audio, text = config.audio, config.text
        self.wave_encoder = nnx.data(WaveEncoder(config, rngs=rngs) if config.waves else None)
        self.project = linear(
            config.channels,
            audio.width,
            ("channels", "embed"),
            dtype=audio.dtype,
            bias=True,
            rngs=rngs,
        )
        self.audio = Peav(audio, rngs=rngs)
        self.text = ModernBert(text, rngs=rngs)
        self.audio_head = Head(audio.width, config.embed, dtype=audio.dtype, rngs=rngs)
        self.text_head = Head(text.width, config.embed, dtype=text.dtype, rngs=rngs)
        # Used as they are, without exp. Where a sigmoid over similarities usually starts (ours).
        self.logit_scale = nnx.Param(jnp.full(1, 10.0), **parallel.axes("channels"))
        self.logit_bias = nnx.Param(jnp.full(1, -10.0), **parallel.axes("channels"))

    def latents(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames channels"]:
        """Of waves of whole frames; only a predictor that was loaded for waves can do it."""
        if self.wave_encoder is None:
            raise UserError("this span predictor has no codec encoder: load it with waves=True")
        return self.wave_encoder(wave)

    def embed_audio(
        self,
        latents: Float[Array, "batch frames channels"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames embed"]:
        """`latents` are the mean of the codec's posterior, before any normalisation of ours."""
        frames, _ = self.audio(self.project(latents), valid)
        return self.audio_head(frames)

    def embed_text(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch embed"]:
        """Of the first token, [CLS]."""
        return self.text_head(self.text(ids, mask)[:, 0])

    def logits(
        self, audio: Float[Array, "batch frames embed"], text: Float[Array, "batch embed"]
    ) -> Float[Array, "batch frames"]:
        similarity = jnp.einsum("bte,be->bt", audio, text, preferred_element_type=jnp.float32)
        return similarity * self.logit_scale[...] + self.logit_bias[...]

    def __call__(
        self,
        latents: Float[Array, "batch frames channels"],
        ids: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        *,
        valid: Bool[Array, "batch frames"] | None = None,  # None = all frames are
    ) -> Float[Array, "batch frames"]:
        """The probability of the text's sound in each frame, float32, at padded frames too."""
        logits = self.logits(self.embed_audio(latents, valid), self.embed_text(ids, mask))
        return jax.nn.sigmoid(logits)
