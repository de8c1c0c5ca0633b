"""What a caller may hand in, checked before any work: recordings, texts, spans, noise."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.audio import Audio
from sam_audio_jax.convert.load import SHIPPED
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.video import Clip
from sam_audio_jax.separator.prompts import Span

SILENCE_DB = -80.0  # a recording whose loudest sample is below this has nothing to separate
TOKENS = ("+", "-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptView:
    """What an item's prompts say, for those who judge its candidates."""

    text: str = ""
    spans: tuple[Span, ...] = ()  # given, or predicted from the text
    video: Clip | None = None

    @property
    def sounding(self) -> list[tuple[float, float]]:
        """Start and end, in seconds, of the "+" spans."""
        return [(start, end) for token, start, end in self.spans if token == "+"]


@dataclasses.dataclass(frozen=True)
class Item:
    """One recording with its prompts, checked; `wave` is mono at the codec's rate."""

    recording: Audio
    wave: Float[np.ndarray, " samples"]
    text: str
    spans: tuple[Span, ...]
    name: str = "audio"  # what errors call it
    flat: bool = False  # the caller gave `[samples]`, without an axis for channels
    clip: Clip | None = None
    features: Float[np.ndarray, "frames video_width"] | None = None  # of the masked video

    @property
    def asked(self) -> PromptView:
        """The prompts alone."""
        return PromptView(text=self.text, spans=self.spans, video=self.clip)


def check_checkpoint(name: str | os.PathLike) -> str:
    """The name of a model that may exist; a misspelt one is told what is shipped."""
    name = str(name)
    shipped = sorted(file.parent.name for file in SHIPPED.glob("*/config.json"))
    if name not in shipped and "/" not in name and not pathlib.Path(name).is_dir():
        raise UserError(
            f"no checkpoint {name!r}; shipped: {', '.join(shipped) or 'none'}; else give a "
            "workdir or one of its steps, a folder in the upstream layout, or a Hugging Face id"
        )
    return name


def make_item(
    source: Any,
    text: str | None,
    spans: Sequence[Sequence] | None,
    *,
    sample_rate: int | None,
    codec_rate: int,
    clip: Clip | None = None,
    name: str = "audio",
) -> Item:
    """Reads and checks one item; `name` is what errors call it."""
    recording = read(source, sample_rate, name)
    if not isinstance(text, str | None):
        raise UserError(f"text of {name} must be a string, not {text!r}")
    seconds = recording.samples.shape[-1] / recording.sample_rate
    checked = check_spans(spans or (), seconds, name)
    wave = audio.resample(audio.mono(recording.samples), recording.sample_rate, codec_rate)
    flat = not isinstance(source, str | os.PathLike) and np.ndim(source) == 1
    return Item(recording, wave, text or "", checked, name, flat, clip)


def read(source: Any, sample_rate: int | None, name: str = "audio") -> Audio:
    """A path, or an array `[samples]` or `[channels, samples]` with its rate.

    UserError: undecodable, empty, not finite, silent, or of a wrong shape or kind.
    """
    if isinstance(source, str | os.PathLike):
        recording = audio.load(source)
        name = str(source)
    else:
        recording = _from_array(source, sample_rate, name)
    peak = float(max(recording.samples.max(), -recording.samples.min()))
    if peak < 10 ** (SILENCE_DB / 20):
        level = f"{20 * math.log10(peak):.0f} dBFS" if peak else "all zeros"
        raise UserError(
            f"{name} is silent ({level}); its loudest sample must reach {SILENCE_DB:.0f} dBFS"
        )
    return recording


def _from_array(source: Any, sample_rate: int | None, name: str) -> Audio:
    samples = np.asarray(source)
    if samples.dtype.kind != "f":
        raise UserError(
            f"{name} must be a path or an array of floats with full scale 1.0, not {samples.dtype}"
        )
    if samples.ndim not in (1, 2):
        raise UserError(
            f"{name} has shape {samples.shape}; allowed are [samples] and [channels, samples]"
        )
    if sample_rate is None:
        raise UserError(f"{name} is an array: say its sample_rate")
    if sample_rate < 1:
        raise UserError(f"sample_rate={sample_rate} must be positive")
    samples = np.atleast_2d(samples).astype(np.float32, copy=False)
    if not samples.size:
        raise UserError(f"{name} has no samples")
    if samples.shape[0] > samples.shape[1]:
        raise UserError(
            f"{name} has {samples.shape[0]} channels of {samples.shape[1]} samples: transposed?"
        )
    if not audio.all_finite(samples):
        raise UserError(f"{name} has samples that are NaN or infinite")
    return Audio(samples, int(sample_rate))


def check_spans(spans: Sequence[Sequence], seconds: float, name: str) -> tuple[Span, ...]:
    """Spans inside the recording; one that runs over its end by less than 50 ms is cut there."""
    checked = []
    for span in parse_spans(spans, name):
        token, start, end = span
        if not (0 <= start < end and start < seconds and end <= seconds + 0.05):
            raise UserError(
                f"span {token} {start:g}-{end:g} s of {name} must have start < end "
                f"within the audio (0-{seconds:.2f} s)"
            )
        checked.append((token, start, min(end, seconds)))
    return tuple(checked)


def parse_spans(spans: Any, name: str) -> tuple[Span, ...]:
    """`[["+", 1.0, 2.5], ...]` as typed tuples; knows no recording yet."""
    if isinstance(spans, str) or not isinstance(spans, Sequence):
        raise UserError(f"spans of {name} must be a list like [['+', 1.0, 2.5]], not {spans!r}")
    return tuple(_parse_span(span, name) for span in spans)


def _parse_span(span: Any, name: str) -> Span:
    if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 3:
        raise UserError(
            f"span {span!r} of {name} must be [token, start, end], e.g. ['+', 1.0, 2.5]"
        )
    token = span[0]
    if token not in TOKENS:
        raise UserError(
            f"span token {token!r} of {name} is unknown; allowed: '+' (sounds) and '-' (does not)"
        )
    try:
        start, end = float(span[1]), float(span[2])
    except (TypeError, ValueError):
        raise UserError(f"span {span!r} of {name} must have its start and end in seconds") from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise UserError(f"span {span!r} of {name} must have finite times")
    return token, start, end


def load_noise(path: str | os.PathLike) -> np.ndarray:
    """An array saved with `numpy.save`; pickled objects are refused."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"no noise file at {path}")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no .npy array of numbers: {error}") from None


def draw_noise(
    seed: int, frames: int, channels: int, candidate: int = 0
) -> Float[np.ndarray, "frames channels"]:
    """Standard normal; a longer draw begins with the shorter one, so padding changes nothing."""
    chosen = (seed, candidate) if candidate else seed
    return np.random.default_rng(chosen).standard_normal((frames, channels), np.float32)


def check_noise(
    noise: Any, frames: int, channels: int, rows: int = 1, name: str = "this recording"
) -> Float[np.ndarray, "rows frames channels"]:
    """Given noise, one row a candidate; a single row needs no axis for it."""
    noise = np.asarray(noise)
    wanted = (rows, frames, channels)
    fits = noise.shape == wanted or (rows == 1 and noise.shape == wanted[1:])
    if not fits or noise.dtype.kind != "f":
        shape, axes = (wanted, "candidates, frames") if rows > 1 else (wanted[1:], "frames")
        raise UserError(
            f"noise is {noise.dtype} of shape {noise.shape}; {name} needs floats of shape "
            f"{shape} ({axes}, twice the latent channels)"
        )
    if not np.isfinite(noise).all():
        raise UserError("noise has values that are NaN or infinite")
    return noise.reshape(wanted).astype(np.float32)


def per_item(name: str, value: Any, count: int) -> list:
    """One value for each of a list of recordings."""
    if value is None:
        return [None] * count
    counted = hasattr(value, "__len__") and not isinstance(value, str)
    if not counted or len(value) != count:
        given = f"{len(value)} values" if counted else repr(value)
        raise UserError(f"{name} needs one value for each of {count} recordings, got {given}")
    return list(value)
