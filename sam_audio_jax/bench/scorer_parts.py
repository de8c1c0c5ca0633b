"""What `sam-audio bench scorers` measures: each scorer at its published size, random weights.

An item is one recording of 10 s, or one separated sound of it with its mixture and its text. Front
ends are part of it (ImageBind's is not), tokenizers are not. Networks: docs/scoring.md.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax.bench.parts import Measurement
from sam_audio_jax.bench.transformer import Call
from sam_audio_jax.bench.weights import random_network
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.activity import span_score
from sam_audio_jax.scorers.aesthetics import Aesthetics, AestheticsConfig
from sam_audio_jax.scorers.clap import Clap, ClapConfig
from sam_audio_jax.scorers.cnn14 import Cnn14, Cnn14Config
from sam_audio_jax.scorers.imagebind import ImageBind, ImageBindConfig
from sam_audio_jax.scorers.judge import Judge, JudgeConfig

SECONDS = 10  # of each recording
TOKENS = 16  # of each text

Original = Literal["judge", "clap", "aesthetics", "sounds", "crops", "cnn14"]
PACKAGES: dict[Original, tuple[str, ...]] = {  # that have a scorer in PyTorch, by import name
    "judge": ("torch", "transformers"),
    "clap": ("torch", "transformers"),
    "aesthetics": ("torch", "audiobox_aesthetics"),
    "sounds": ("torch", "imagebind", "timm", "iopath", "torchvision"),
    "crops": ("torch", "imagebind", "timm", "iopath", "torchvision"),
    "cnn14": ("torch", "panns_inference", "torchlibrosa"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerForward:
    """A scorer's network and program, and the function in `torch_scorers` that does the same."""

    make: Callable[[], nnx.Module]
    program: Callable[..., jax.Array]
    inputs: Callable[[], tuple[np.ndarray, ...]]
    original: Original

    def __call__(self) -> Call:
        """Returns the compiled program with random weights and its arguments."""
        return Compiled(random_network(self.make)), (self.program, *self.inputs())

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages of the original that are not installed."""
        wanted = PACKAGES[self.original]
        return tuple(name for name in wanted if importlib.util.find_spec(name) is None)


def waves(rows: int, sample_rate: int, seconds: float = SECONDS) -> Float[np.ndarray, "rows _"]:
    """Noise at a level of speech, in steps of 16 bits, which CLAP's quantisation leaves."""
    noise = np.random.default_rng(0).standard_normal((rows, round(seconds * sample_rate)))
    return (np.round(noise / 10 * 32_767).clip(-32_767, 32_767) / 32_767).astype(np.float32)


def texts(rows: int) -> tuple[Int[np.ndarray, "rows _"], Bool[np.ndarray, "rows _"]]:
    """Random token ids, and a mask without padding."""
    ids = np.random.default_rng(1).integers(1000, 20_000, (rows, TOKENS)).astype(np.int32)
    return ids, np.ones(ids.shape, bool)


def pictures(config: ImageBindConfig) -> Float[np.ndarray, "crops frames y x 3"]:
    """The three crops of one clip of a video, of its fifteen."""
    shape = (3, config.clip_frames, config.image_size, config.image_size, 3)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def spectra(config: ImageBindConfig) -> Float[np.ndarray, "clips bands frames"]:
    """Random spectra of the three clips of two sounds; the original's front end is torchaudio's."""
    shape = (2 * config.audio_clips, config.bands, config.spectrum_frames)
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def judge_scores(
    network: Judge,
    mixture: Float[Array, "batch samples"],
    separated: Float[Array, "batch samples"],
    ids: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> Float[Array, "batch axes"]:
    """The judge's standardised scores."""
    return network.standardised(mixture, separated, ids, mask)


def clap_vectors(
    network: Clap,
    wave: Float[Array, "batch samples"],
    ids: Int[Array, "batch tokens"],
    mask: Bool[Array, "batch tokens"],
) -> Float[Array, "towers batch embedding"]:
    """CLAP's vectors of sounds and of texts, whose products are the cosines."""
    return jax.numpy.stack([network.embed_audio(wave), network.embed_text(ids, mask)])


def aesthetics_scores(
    network: Aesthetics, wave: Float[Array, "batch samples"]
) -> Float[Array, "batch axes"]:
    """What the heads give for whole windows."""
    return network.raw(wave, jax.numpy.full(len(wave), wave.shape[1]))


def event_vectors(
    network: Cnn14, wave: Float[Array, "batch samples"]
) -> Float[Array, "batch width"]:
    """Cnn14's embedding of whole recordings."""
    return network.tag(network.trunk(network.log_mel(wave))).embedding


def judge(config: JudgeConfig, seconds: float = SECONDS) -> ScorerForward:
    """One separated sound with its mixture and its text."""

    def inputs() -> tuple[np.ndarray, ...]:
        mixture, separated = waves(2, config.sample_rate, seconds)[:, None]
        return (mixture, separated, *texts(1))

    return ScorerForward(
        make=lambda: Judge(config, rngs=Rngs(0)),
        program=judge_scores,
        inputs=inputs,
        original="judge",
    )


def clap() -> ScorerForward:
    """Two sounds with their texts."""
    config = ClapConfig()
    return ScorerForward(
        make=lambda: Clap(config, rngs=Rngs(0)),
        program=clap_vectors,
        inputs=lambda: (waves(2, config.sample_rate), *texts(2)),
        original="clap",
    )


def aesthetics() -> ScorerForward:
    """Two windows of sound."""
    config = AestheticsConfig()
    return ScorerForward(
        make=lambda: Aesthetics(config, rngs=Rngs(0)),
        program=aesthetics_scores,
        inputs=lambda: (waves(2, config.sample_rate, config.window / config.sample_rate),),
        original="aesthetics",
    )


def imagebind(part: Literal["sounds", "crops"]) -> ScorerForward:
    """The spectra of two sounds, or a fifth of the crops of one video."""
    config = ImageBindConfig()
    sounds = part == "sounds"
    return ScorerForward(
        make=lambda: ImageBind(config, rngs=Rngs(0)),
        program=ImageBind.encode_spectra if sounds else ImageBind.encode_crops,
        inputs=lambda: (spectra(config) if sounds else pictures(config),),
        original=part,
    )


def cnn14() -> ScorerForward:
    """Two sounds."""
    config = Cnn14Config()
    return ScorerForward(
        make=lambda: Cnn14(config, rngs=Rngs(0)),
        program=event_vectors,
        inputs=lambda: (waves(2, config.sample_rate),),
        original="cnn14",
    )


def span_iou() -> Call:
    """Two sounds with one span each; no network is in it."""
    rate = 48_000

    def run(sounds: np.ndarray) -> list[float]:
        return [span_score(wave, rate, [("+", 2.0, 5.0)]) for wave in sounds]

    return run, (waves(2, rate),)


def _items(title: str, make: Callable[[], Any], amount: float | int = 2) -> Measurement:
    return Measurement(title=title, make=make, amount=amount, unit="items")


SCORERS = {
    "judge": _items("judge, one sound with mixture and text, 10 s", judge(JudgeConfig()), 1),
    "clap": _items("CLAP 630k-best, two sounds and texts, 10 s", clap()),
    "aesthetics": _items("Audiobox Aesthetics, two sounds, 10 s", aesthetics()),
    "imagebind": _items("ImageBind, two sounds, three spectra each", imagebind("sounds")),
    "imagebind-video": _items("ImageBind, video, 3 of its 15 crops", imagebind("crops"), 1 / 5),
    "cnn14": _items("PANNs Cnn14, two sounds, 10 s", cnn14()),
    "span-iou": _items("SpanIoU, two sounds, no network, 10 s", span_iou),
}
