"""PE-A-Frame: the frames of a recording in which the sound of a text occurs.

Paper: arXiv 2512.19687. Arithmetic: docs/prompt_encoders.md, "PE-A-Frame".
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, SampleRate, Size
from sam_audio_jax.codec.encoder import Encoder
from sam_audio_jax.encoders.modernbert import ModernBert, ModernBertConfig
from sam_audio_jax.encoders.peav import Peav, PeavConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import PlainConv1d
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import LayerNorm

HEAD_EPS = 1e-6  # of the heads' LayerNorm, as in the reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanPredictorConfig(Checked, where="spans"):
    """Sizes of both towers; the defaults are pe-a-frame-large's."""

    audio: PeavConfig = dataclasses.field(default_factory=PeavConfig)
    text: ModernBertConfig = dataclasses.field(default_factory=ModernBertConfig)
    channels: Size = 128  # of the codec's latents
    embed: Size = 1024  # width of the space in which frames and texts are compared
    sample_rate: SampleRate = 48_000
    encoder_dim: Size = 64  # channels after the first convolution of its own codec encoder
    encoder_rates: tuple[Size, ...] = (2, 8, 10, 12)  # strides; their product is the hop
    # Whether to build that encoder; inside SAM Audio the codec computes the latents.
    waves: bool = False

    @property
    def hop(self) -> int:
        """Samples in a frame."""
        return math.prod(self.encoder_rates)


class WaveEncoder(nnx.Module):
    """A copy of the codec's encoder without weight norm; returns the mean of the posterior."""

    def __init__(self, config: SpanPredictorConfig, *, rngs: nnx.Rngs):
        width = config.encoder_dim * 2 ** len(config.encoder_rates)
        self.encoder = Encoder(
            config.encoder_dim, config.encoder_rates, width, conv=PlainConv1d, rngs=rngs
        )
        self.in_proj = PlainConv1d(width, 2 * config.channels, 1, rngs=rngs)

    def __call__(
        self, wave: Float[Array, "batch samples"]
    ) -> Float[Array, "batch frames channels"]:
        """Encodes waves whose length is a multiple of the hop (`codec.pad_to_hop`)."""
        return jnp.split(self.in_proj(self.encoder(wave[..., None])), 2, axis=-1)[0]


class Head(nnx.Module):
    """`project(norm(x))`; the result is not normalised to length 1."""

    def __init__(self, width: int, embed: int, *, dtype: str, rngs: nnx.Rngs):
        self.norm = LayerNorm(width, eps=HEAD_EPS, rngs=rngs)
        self.project = linear(width, embed, ("embed", "mlp"), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*rows width"]) -> Float[Array, "*rows embed"]:
        return self.project(self.norm(x))


class SpanPredictor(nnx.Module):
    """Scores every frame of an item against the item's text: item b against text b."""

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
        # Scale and bias are used as stored, without exp. The initial values are our choice, those
        # of SigLIP (arXiv 2303.15343).
        self.logit_scale = nnx.Param(jnp.full(1, 10.0), **parallel.axes("channels"))
        self.logit_bias = nnx.Param(jnp.full(1, -10.0), **parallel.axes("channels"))

    def latents(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames channels"]:
        """Encodes waves whose length is a multiple of the hop.

        Raises UserError if the predictor was built without `config.waves`.
        """
        if self.wave_encoder is None:
            raise UserError("this span predictor has no codec encoder: load it with waves=True")
        return self.wave_encoder(wave)

    def embed_audio(
        self,
        latents: Float[Array, "batch frames channels"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames embed"]:
        """Embeds frames; `latents` are the mean of the codec's posterior, not normalised."""
        frames, _ = self.audio(self.project(latents), valid)
        return self.audio_head(frames)

    def embed_text(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch embed"]:
        """Embeds texts by the hidden state of their first token, [CLS]."""
        return self.text_head(self.text(ids, mask)[:, 0])

    def logits(
        self, audio: Float[Array, "batch frames embed"], text: Float[Array, "batch embed"]
    ) -> Float[Array, "batch frames"]:
        """Scaled and shifted inner products, float32."""
        similarity = jnp.einsum("bte,be->bt", audio, text, preferred_element_type=jnp.float32)
        return similarity * self.logit_scale[...] + self.logit_bias[...]

    def __call__(
        self,
        latents: Float[Array, "batch frames channels"],
        ids: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        *,
        valid: Bool[Array, "batch frames"] | None = None,  # None = all frames
    ) -> Float[Array, "batch frames"]:
        """Returns the probability of the text's sound in each frame, float32.

        Padded frames have a probability too; callers ignore it.
        """
        logits = self.logits(self.embed_audio(latents, valid), self.embed_text(ids, mask))
        return jax.nn.sigmoid(logits)
