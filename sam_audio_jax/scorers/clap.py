"""LAION's CLAP: how well a text describes a sound, as the cosine of two embeddings.

Paper: arXiv 2211.06687. Arithmetic: docs/scoring.md, "CLAP". The network is frozen.
"""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from sam_audio_jax import parallel
from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.bounds import Checked, NonNegative, Positive, SampleRate, Size
from sam_audio_jax.encoders.roberta import Roberta, RobertaConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.scorers import front_end
from sam_audio_jax.scorers.htsat import Htsat, HtsatConfig

FULL_SCALE = 32_767  # of the 16-bit integers through which the reference takes every wave
WAV_SCALE = 32_768  # of those in a WAV file
NORM_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapConfig(Checked, where="clap"):
    """Front end and sizes; the defaults are those of the checkpoint 630k-best."""

    sample_rate: SampleRate = 48_000
    samples: Size = 480_000  # of every wave that the tower gets
    window: Size = 1024  # samples
    hop: Size = 480  # samples between frames
    low_hz: NonNegative = 50.0
    high_hz: Positive = 14_000.0
    audio: HtsatConfig = dataclasses.field(default_factory=HtsatConfig)
    text: RobertaConfig = dataclasses.field(default_factory=RobertaConfig)
    embedding: Size = 512
    tokens: Size = 77  # of a text with its first and last token; longer ones are cut

    def __post_init__(self):
        super().__post_init__()
        if self.samples // self.hop + 1 > self.audio.frames:
            raise UserError(
                f"clap.samples={self.samples} in hops of {self.hop} are more frames than the "
                f"{self.audio.frames} of clap.audio"
            )
        if self.tokens > self.text.longest:
            raise UserError(
                f"clap.tokens={self.tokens} must be at most {self.text.longest}, for which "
                "clap.text has positions"
            )


def quantise(wave: Float[Array, "*batch samples"]) -> Float32[Array, "*batch samples"]:
    """What is left of a wave after 16-bit integers: `trunc(32767 clip(x, -1, 1)) / 32767`."""
    whole = jnp.trunc(jnp.clip(wave.astype(jnp.float32), -1, 1) * FULL_SCALE)
    # XLA replaces a division by 32767 with a product that rounds differently; this sum avoids that.
    return whole * 2**-15 + whole * (2**-15 / FULL_SCALE)


def as_wav(wave: Float[Array, "*batch samples"]) -> Float32[Array, "*batch samples"]:
    """What is left of a wave after a 16-bit WAV file: rounded half to even, clipped."""
    whole = jnp.round(wave.astype(jnp.float32) * WAV_SCALE)
    return jnp.clip(whole, -WAV_SCALE, WAV_SCALE - 1) / WAV_SCALE


def fit(
    wave: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    offsets: Int[Array, " batch"],
    size: int,
) -> Float[Array, "batch {size}"]:
    """Brings waves of their own `lengths` to `size` samples.

    A longer one is cut at its offset, a shorter one is repeated as often as it fits, with zeros
    behind.
    """
    place = jnp.arange(size)
    own = jnp.maximum(lengths, 1)[:, None]
    long = own >= size
    index = jnp.where(long, offsets[:, None] + place, place % own)
    filled = jnp.where(long, size, size // own * own)
    return jnp.where(place < filled, jnp.take_along_axis(wave, index, axis=1), 0)


def normalise(x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
    """Scales rows to length 1; zeros stay zeros."""
    length = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return x / jnp.maximum(length, NORM_FLOOR)


class Projection(nnx.Module):
    """`down(relu(up(x)))`, scaled to length 1, in float32."""

    def __init__(self, size_in: int, size_out: int, *, rngs: nnx.Rngs):
        dense = functools.partial(linear, dtype="float32", bias=True, rngs=rngs)
        self.up = dense(size_in, size_out, ("embed", "mlp"))
        self.down = dense(size_out, size_out, ("mlp", "embed"))

    def __call__(self, x: Float[Array, "batch size_in"]) -> Float[Array, "batch size_out"]:
        return normalise(self.down(nnx.relu(self.up(x))))


class Clap(nnx.Module):
    """Two towers into one space: the cosine of a sound and a text says how well they fit."""

    def __init__(self, config: ClapConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.audio = Htsat(config.audio, rngs=rngs)
        self.text = Roberta(config.text, rngs=rngs)
        audio_width, text_width = config.audio.widths[-1], config.text.width
        self.audio_projection = Projection(audio_width, config.embedding, rngs=rngs)
        self.text_projection = Projection(text_width, config.embedding, rngs=rngs)

    def tower_input(
        self,
        wave: Float[Array, "batch samples"],
        lengths: Int[Array, " batch"] | None = None,
        offsets: Int[Array, " batch"] | None = None,
        *,
        via_wav: bool = False,
    ) -> Float32[Array, "batch {self.config.samples}"]:
        """Quantises waves at `config.sample_rate` and brings each to `config.samples` samples.

        The first `lengths` samples of a row are sound, by default all. A longer wave is cut at its
        offset, by default in its middle. With `via_wav` it passes a 16-bit WAV file first.
        """
        if lengths is None:
            lengths = jnp.full(wave.shape[0], wave.shape[1])
        if offsets is None:
            offsets = jnp.maximum(lengths - self.config.samples, 0) // 2
        wave = quantise(as_wav(wave) if via_wav else wave)
        return fit(wave, lengths, offsets, self.config.samples)

    def log_mel(self, wave: Float[Array, "batch samples"]) -> Float[Array, "batch frames mels"]:
        """Log-mel spectrogram in dB. Raises UserError for a wave of at most half a window."""
        config = self.config
        filters = mel_filters(
            config.sample_rate, config.window, config.audio.mels, config.low_hz, config.high_hz
        )
        return front_end.log_mel(wave, config.window, config.hop, filters)

    def embed_audio(
        self,
        wave: Float[Array, "batch samples"],
        lengths: Int[Array, " batch"] | None = None,
        offsets: Int[Array, " batch"] | None = None,
        *,
        via_wav: bool = False,
    ) -> Float[Array, "batch embedding"]:
        """Embeds waves; arguments as those of `tower_input`."""
        wave = parallel.constrain(wave, "batch", "width")
        whole = self.tower_input(wave, lengths, offsets, via_wav=via_wav)
        return self.audio_projection(self.audio(self.log_mel(whole)))

    def embed_text(
        self, ids: Int[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch embedding"]:
        """Embeds texts of RoBERTa's tokens; `mask` is True at real ones."""
        return self.text_projection(self.text.pooled(self.text(ids, mask)))
