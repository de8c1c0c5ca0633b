"""The audio tower: a sound, as the codec's latents, becomes a vector among those of words.

A small PEAV transformer (`peav.py`), whose class token gathers the frames by attention, with a
projection to the width of the word vectors. It is ours, and so is its training: a sound shall be
near the mean of the word vectors of its caption and far from those of all others, as in CLAP
(arXiv 2211.06687), but with a text side that is frozen and has no layers. See
docs/prompt_encoders.md, "Audio tower".
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Finite, SampleRate, Size
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.codec.probe import is_same_network, probe_noise, probe_of
from sam_audio_jax.encoders.peav import Peav, PeavConfig
from sam_audio_jax.encoders.text_means import TextMeans, unit
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.fingerprint import fingerprint_of, same_weights
from sam_audio_jax.nn.linear import linear

FIRST_TEMPERATURE = 0.07  # by which cosines are divided at the beginning of the training
PROBE_TEXT = "a dog barks"  # by whose mean word vectors are recognised
PROBE_FRAMES = 50  # of noise by whose latents a codec is recognised; more than an encoder sees


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioTowerConfig(Checked, where="audio_tower"):
    """Sizes of the tower; the defaults fit the codec of `tiny` and the vectors of wordllama."""

    channels: Size = 12  # of the codec's latents
    embedding: Size = 256  # of the word vectors
    audio: PeavConfig = dataclasses.field(
        default_factory=lambda: PeavConfig(depth=3, width=160, heads=4, mlp=320)
    )


class AudioTower(nnx.Module):
    """Maps latents of sounds to vectors of length 1 in the space of word vectors."""

    def __init__(self, config: AudioTowerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, dtype = config.audio.width, config.audio.dtype
        self.project = linear(
            config.channels, width, ("channels", "embed"), dtype=dtype, bias=True, rngs=rngs
        )
        self.audio = Peav(config.audio, rngs=rngs)
        self.out = linear(
            width, config.embedding, ("embed", "channels"), dtype="float32", bias=True, rngs=rngs
        )
        # Logarithm of the factor of the cosines in the loss; it learns.
        start = jnp.full(1, -math.log(FIRST_TEMPERATURE))
        self.scale = nnx.Param(start, **parallel.axes("channels"))
        # The usual length of the mean of a caption's word vectors; no optimiser changes it.
        self.length = nnx.Param(jnp.ones(1), **parallel.axes("channels"))

    def __call__(
        self,
        latents: Float[Array, "batch frames channels"],
        valid: Bool[Array, "batch frames"] | None = None,  # True = real frame; None = all are
    ) -> Float[Array, "batch embedding"]:
        """The vector of each sound, float32; padding changes none."""
        _, pooled = self.audio(self.project(latents), valid)
        return unit(self.out(pooled.astype(jnp.float32)))

    def as_words(self, vectors: Float[Array, "*rows embedding"]) -> Float[Array, "*rows embedding"]:
        """Vectors of length 1, at the length that the mean of a caption's word vectors has."""
        return vectors * self.length[...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioTextSpace(Checked, where="space"):
    """What a tower was trained between: the latents of one codec, the vectors of one text encoder.

    Between others it would give vectors without any meaning, which nothing in them shows.
    """

    sample_rate: SampleRate  # of the codec, in Hz
    hop: Size  # samples in a frame
    frames: Size  # that the tower saw at once; longer sounds are read in pieces of so many
    noise_frames: Size  # of the noise by whose latents the codec is recognised
    latents: tuple[Finite, ...]  # of that noise, by `codec.probe`
    words: tuple[Finite, ...]  # the mean word vector of `PROBE_TEXT`, its first numbers
    table: str = ""  # fingerprint of all word vectors; empty: of a tower that does not say it

    def check(self, codec: Codec, texts: TextMeans, whose: str) -> None:
        """Raises `UserError` unless the tower fits a codec and the word vectors of texts."""
        config = codec.config
        if (config.sample_rate, config.hop) != (self.sample_rate, self.hop):
            raise UserError(
                f"{whose} reads latents of {self.hop} samples at {self.sample_rate} Hz, the codec "
                f"makes them of {config.hop} at {config.sample_rate} Hz"
            )
        self._check_probes(latents_probe(codec, self.noise_frames), words_probe(texts), whose)

    def check_table(self, table: str, whose: str) -> None:
        """Raises `UserError` for word vectors of which some alone differ, as after a training.

        Those of a model in less than float32 differ, too: this is for trainings.
        """
        if self.table and table and not same_weights(self.table, table):
            raise UserError(
                f"{whose} was trained among other word vectors: these have learned since, or others"
            )

    def check_same(self, other: "AudioTextSpace", whose: str) -> None:
        """Raises `UserError` unless another space is of the same codec and word vectors."""
        grids = (self.sample_rate, self.hop), (other.sample_rate, other.hop)
        if grids[0] != grids[1]:
            (rate, hop), (other_rate, other_hop) = grids
            raise UserError(
                f"{whose} was trained on latents of {hop} samples at {rate} Hz, not of {other_hop} "
                f"at {other_rate} Hz"
            )
        self._check_probes(other.latents, other.words, whose)
        self.check_table(other.table, whose)

    def _check_probes(
        self, latents: tuple[float, ...], words: tuple[float, ...], whose: str
    ) -> None:
        if not is_same_network(self.latents, latents):
            raise UserError(f"{whose} was trained on the latents of another codec")
        known, wanted = np.asarray(words), np.asarray(self.words)
        tolerance = 0.01 * np.abs(wanted).max(initial=0.0)
        if known.shape != wanted.shape or not np.allclose(known, wanted, atol=tolerance):
            raise UserError(f"{whose} was trained among the word vectors of another text encoder")


def latents_probe(codec: Codec, frames: int) -> tuple[float, ...]:
    """What a codec makes of a fixed noise of so many frames."""
    noise = probe_noise(1, frames * codec.config.hop)
    return probe_of(np.asarray(Compiled(codec)(Codec.encode, jnp.asarray(noise))))


def table_fingerprint(texts: TextMeans) -> str:
    """Stands for all word vectors, to float16."""
    return fingerprint_of(jnp.asarray(texts.table), rounded=True)


def words_probe(texts: TextMeans) -> tuple[float, ...]:
    """The first numbers of the mean word vector of a fixed text."""
    return probe_of(texts([PROBE_TEXT])[:, None])


class WaveTower(nnx.Module):
    """Codec and tower one after the other: waves to vectors."""

    def __init__(self, codec: Codec, tower: AudioTower):
        self.codec, self.tower = codec, tower

    def __call__(
        self, waves: Float[Array, "batch samples"], valid: Bool[Array, "batch frames"]
    ) -> Float[Array, "batch embedding"]:
        """The vector of each wave, of whole frames."""
        return self.tower(self.codec.encode(waves), valid)
