"""SAM Audio Judge: how well a separated sound is what a text names in a mixture, without a stem.

Papers: arXiv 2601.19702, arXiv 2512.18099. Arithmetic: docs/scoring.md, "Judge".
"""

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, SampleRate, Size
from sam_audio_jax.codec.encoder import Encoder
from sam_audio_jax.encoders.modernbert import ModernBert, ModernBertConfig
from sam_audio_jax.encoders.peav import Peav, PeavConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import WeightNormConv1d
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import LayerNorm

AXES = ("overall", "recall", "precision", "faithfulness")  # the columns of the head, in its order
NORM_EPS = 1e-5  # of the text's LayerNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig(Checked, where="judge"):
    """Sizes of all parts; the defaults are those of the released sam-audio-judge."""

    audio: PeavConfig = dataclasses.field(default_factory=PeavConfig)
    scoring: PeavConfig = dataclasses.field(
        default_factory=lambda: PeavConfig(depth=6, width=192, heads=3, mlp=512)
    )
    text: ModernBertConfig = dataclasses.field(default_factory=ModernBertConfig)
    bottleneck: Size = 256  # width in which the pair of sounds meets the text
    sample_rate: SampleRate = 48_000
    encoder_dim: Size = 64  # channels after the first convolution of its codec encoder
    encoder_rates: tuple[Size, ...] = (2, 8, 10, 12)  # strides; their product is the hop
    latent_dim: Size = 1024  # width between encoder and bottleneck of the codec
    channels: Size = 128  # of the codec's latents
    # Whether padded frames are masked in both transformers. The released judge was trained and
    # evaluated without (False): there only the mean over time leaves them out.
    mask_attention: bool = False

    def __post_init__(self):
        super().__post_init__()
        if odd := [rate for rate in self.encoder_rates if rate % 2]:
            raise UserError(
                f"judge.encoder_rates={self.encoder_rates} has {odd[0]}: an odd rate of the "
                "codec's encoder loses a frame, the judge needs even ones"
            )

    @property
    def hop(self) -> int:
        """Samples in a frame."""
        return math.prod(self.encoder_rates)


class JudgeScores(NamedTuple):
    """Scores on a scale of 1 to 5, which they may leave; float32."""

    overall: Float[Array, "*rows"]  # quality of the separation as a whole
    recall: Float[Array, "*rows"]  # whether all of the named sound is there
    precision: Float[Array, "*rows"]  # whether nothing else is there
    faithfulness: Float[Array, "*rows"]  # whether it sounds as it does in the mixture


class MeanEncoder(nnx.Module):
    """The codec's encoder with weight norm and the first half of its bottleneck: the means."""

    def __init__(self, config: JudgeConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(
            config.encoder_dim, config.encoder_rates, config.latent_dim, rngs=rngs
        )
        self.in_proj = WeightNormConv1d(
            config.latent_dim, 2 * config.channels, 1, zero_bias=False, rngs=rngs
        )

    def __call__(
        self, wave: Float[Array, "batch samples"]
    ) -> Float[Array, "batch frames channels"]:
        """Encodes waves whose length is a multiple of the hop (`codec.pad_to_hop`)."""
        return jnp.split(self.in_proj(self.encoder(wave[..., None])), 2, axis=-1)[0]


class Statistic(nnx.Param):
    """A stored number by which results are scaled; no optimiser changes it."""


class Judge(nnx.Module):
    """Scores the separated sound of each item against its mixture and its text.

    The parts of an item can be computed apart (`embed_audio`, `embed_text`), so that one mixture
    and one text serve many candidates; `__call__` does all of it.
    """

    def __init__(self, config: JudgeConfig, *, rngs: nnx.Rngs):
        self.config = config
        audio, text, scoring = config.audio, config.text, config.scoring
        size = config.bottleneck
        self.wave_encoder = MeanEncoder(config, rngs=rngs)
        self.project = _linear(config.channels, audio.width, audio.dtype, rngs, axis="channels")
        self.audio = Peav(audio, rngs=rngs)
        self.text = ModernBert(text, rngs=rngs)
        self.widen_text = _linear(text.width, audio.width, text.dtype, rngs, bias=False)
        self.narrow_text = _linear(audio.width, size, text.dtype, rngs)
        self.text_norm = LayerNorm(size, eps=NORM_EPS, rngs=rngs)
        self.join_sounds = _linear(2 * audio.width, size, scoring.dtype, rngs)
        self.join_text = _linear(2 * size, size, scoring.dtype, rngs)
        self.scoring_in = _linear(size, scoring.width, scoring.dtype, rngs)
        self.scoring = Peav(scoring, rngs=rngs)
        self.head = linear(
            scoring.width, len(AXES), ("embed", "channels"), dtype=scoring.dtype, rngs=rngs
        )
        self.mean = Statistic(jnp.zeros(len(AXES)), **parallel.axes("channels"))
        self.std = Statistic(jnp.ones(len(AXES)), **parallel.axes("channels"))

    def latents(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames channels"]:
        """Encodes waves whose length is a multiple of the hop; means, not normalised."""
        return self.wave_encoder(wave)

    def embed_audio(
        self,
        latents: Float[Array, "batch frames channels"],
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames width"]:
        """Embeds the frames of mixtures or of separated sounds; `valid` as in `frame_scores`."""
        frames, _ = self.audio(self.project(latents), self._attended(valid))
        return frames

    def embed_text(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch bottleneck"]:
        """Embeds texts by the hidden state of their first token, [CLS]."""
        return self.text_norm(self.narrow_text(self.widen_text(self.text(ids, mask)[:, 0])))

    def frame_scores(
        self,
        mixture: Float[Array, "batch frames width"],
        separated: Float[Array, "batch frames width"],
        text: Float[Array, "batch bottleneck"],
        valid: Bool[Array, "batch frames"] | None = None,  # None = all
    ) -> Float[Array, "batch frames axes"]:
        """Standardised scores of each frame, from embedded sounds and texts; float32.

        `valid` is True at an item's own frames; without `config.mask_attention` it changes nothing
        here, as in the reference.
        """
        sounds = self.join_sounds(jnp.concatenate([separated, mixture], axis=-1))
        texts = jnp.broadcast_to(text[:, None].astype(sounds.dtype), sounds.shape)
        joined = self.join_text(jnp.concatenate([sounds, texts], axis=-1))
        frames, _ = self.scoring(self.scoring_in(joined), self._attended(valid))
        return self.head(frames).astype(jnp.float32)

    def on_scale(self, standardised: Float[Array, "*rows axes"]) -> JudgeScores:
        """Scores on the raters' scale."""
        scores = standardised * self.std[...] + self.mean[...]
        return JudgeScores(*(scores[..., column] for column in range(len(AXES))))

    def __call__(
        self,
        mixture: Float[Array, "batch samples"],
        separated: Float[Array, "batch samples"],
        ids: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        *,
        valid: Bool[Array, "batch frames"] | None = None,  # None = all
    ) -> JudgeScores:
        """Scores `[batch]` of pairs of waves whose length is a multiple of the hop."""
        return self.on_scale(self.standardised(mixture, separated, ids, mask, valid=valid))

    def standardised(
        self,
        mixture: Float[Array, "batch samples"],
        separated: Float[Array, "batch samples"],
        ids: Int[Array, "batch tokens"],
        mask: Bool[Array, "batch tokens"],
        *,
        valid: Bool[Array, "batch frames"] | None = None,  # None = all
    ) -> Float[Array, "batch axes"]:
        """As `__call__`, before the raters' mean and spread are applied: what training fits."""
        waves = jnp.concatenate([mixture, separated])  # the reference's order
        both = None if valid is None else jnp.concatenate([valid, valid])
        frames = self.embed_audio(self.latents(waves), both)
        of_mixture, of_separated = jnp.split(frames, 2)
        return self.of_frames(of_mixture, of_separated, self.embed_text(ids, mask), valid)

    def of_frames(
        self,
        mixture: Float[Array, "batch frames width"],
        separated: Float[Array, "batch frames width"],
        text: Float[Array, "batch bottleneck"],
        valid: Bool[Array, "batch frames"] | None,
    ) -> Float[Array, "batch axes"]:
        """Standardised scores of items whose sounds and texts are embedded."""
        return mean_of_frames(self.frame_scores(mixture, separated, text, valid), valid)

    def _attended(self, valid: Bool[Array, "batch frames"] | None) -> Bool[Array, "_ _"] | None:
        return valid if self.config.mask_attention else None


def mean_of_frames(
    scores: Float[Array, "batch frames axes"], valid: Bool[Array, "batch frames"] | None
) -> Float[Array, "batch axes"]:
    """The mean over an item's own frames."""
    return jnp.mean(scores, axis=1, where=None if valid is None else valid[:, :, None])


def _linear(
    size_in: int,
    size_out: int,
    dtype: str,
    rngs: nnx.Rngs,
    *,
    axis: parallel.LogicalAxis = "embed",
    bias: bool = True,
) -> nnx.Linear:
    """A linear layer; `axis` is the logical axis of its inputs."""
    out: parallel.LogicalAxis = "embed" if axis == "channels" else "mlp"
    return linear(size_in, size_out, (axis, out), dtype=dtype, bias=bias, rngs=rngs)
