"""Checks of what a caller passes, before any work: recordings, texts, spans, noise."""

import dataclasses
import itertools
import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.audio import Audio, Level
from sam_audio_jax.convert.model_files import SHIPPED
from sam_audio_jax.encoders.text_form import find_surrogate, has_words, normalize
from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.infer.video_prompts import Clip
from sam_audio_jax.scorers.scorer import PromptView
from sam_audio_jax.separator.prompts import Span
from sam_audio_jax.video.reading import video_notes

TOKENS = ("+", "-")


@dataclasses.dataclass(frozen=True)
class Item:
    """One checked recording with its prompts."""

    recording: Audio
    wave: Float[np.ndarray, " samples"]  # mono, at the codec's rate, as the networks take it
    text: str
    spans: tuple[Span, ...]
    name: str = "audio"  # what errors call the item
    flat: bool = False  # the recording was an array `[samples]`, without an axis for channels
    clip: Clip | None = None
    features: Float[np.ndarray, "frames video_width"] | None = None  # features of the masked video
    like: Float[np.ndarray, " text_width"] | None = None  # vector of an example
    level: Level = audio.AS_RECORDED  # what was done to `wave` after it was mixed
    weights: Float[np.ndarray, " channels"] | None = None  # with which it was; None: the mean
    offsets: Float[np.ndarray, " channels"] | None = None  # of the recording; None: usual ones
    placeholder: bool = False  # it only fills a row of a batch: nothing of its result is kept

    @property
    def prompts(self) -> PromptView:
        """Returns the prompts alone."""
        video = None if self.clip is None else self.clip.at
        return PromptView(text=self.text, spans=self.spans, video=video)

    def mix(self, samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " samples"]:
        """Returns the sum of channels, with the weights of `wave` if it is of as many."""
        same = self.weights is not None and len(self.weights) == len(samples)
        return audio.mono(samples, self.weights if same else None)


def check_checkpoint(name: str | os.PathLike) -> str:
    """Returns the name as a string; raises UserError if there can be no such checkpoint."""
    name = str(name)
    shipped = sorted(file.parent.name for file in SHIPPED.glob("*/checkpoint.safetensors"))
    if name not in shipped and "/" not in name and not pathlib.Path(name).is_dir():
        raise UserError(
            f"no checkpoint {name!r}; shipped: {', '.join(shipped) or 'none'}; else give a "
            "workdir or one of its steps, a folder in the upstream layout, or a Hugging Face id"
        )
    return name


def notes_of(items: Sequence[Item]) -> tuple[str, ...]:
    """Returns the notes on a recording and all texts of it, each once."""
    return tuple(dict.fromkeys(note for item in items for note in item.recording.notes))


def make_item(
    source: Any,
    text: str | None,
    spans: Any,
    *,
    sample_rate: int | None,
    codec_rate: int,
    track: int | None = None,
    clip: Clip | None = None,
    name: str = "audio",
    level_db: float | None = None,
) -> Item:
    """Reads and checks one item; `name` is what errors call it.

    `source`, `sample_rate` and `track` are those of `read`, `level_db` is the model's usual level
    in dBFS, to which the wave is brought (None: it stays as recorded).
    """
    recording = read(source, sample_rate, name, track)
    text = check_text(text, name)
    seconds = recording.samples.shape[-1] / recording.sample_rate
    checked_spans = check_spans(() if spans is None else spans, seconds, name)
    mono, weights, recording = to_mono(recording, name)
    if clip is not None and clip.path is not None:
        notes = (*recording.notes, *video_notes(clip.path, seconds, clip.track))
        recording = dataclasses.replace(recording, notes=notes)
    wave = audio.resample(mono, recording.sample_rate, codec_rate)
    level = audio.AS_RECORDED if level_db is None else audio.find_level(wave, codec_rate, level_db)
    if level is None:
        raise UserError(f"{name} is silent: there is nothing but an offset in it")
    flat = not isinstance(source, str | os.PathLike | Audio) and np.ndim(source) == 1
    return Item(
        recording,
        level.apply(wave),
        text,
        checked_spans,
        name,
        flat,
        clip,
        level=level,
        weights=weights,
        offsets=None if level_db is None else audio.find_offsets(recording.samples),
    )


def to_mono(
    recording: Audio, name: str
) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, " channels"], Audio]:
    """Returns their sum, its weights, and the recording with a note on unusual ones."""
    weights = audio.mixing_weights(recording.samples, recording.sample_rate)
    if not audio.is_mean(weights):
        note = f"{name}: its channels cancel in their mean; what is separated is "
        notes = (*recording.notes, note + audio.describe(weights))
        recording = dataclasses.replace(recording, notes=notes)
    return audio.mono(recording.samples, weights), weights, recording


def read(
    source: Any, sample_rate: int | None = None, name: str = "audio", track: int | None = None
) -> Audio:
    """Returns the recording, decoded if `source` is a path.

    `source` may also be an `Audio`, which is decoded already, or an array `[samples]` or
    `[channels, samples]` at `sample_rate`. `track` chooses one of a file's audio tracks, counted
    from 1. Raises UserError if it cannot be decoded, is empty, not finite or silent, or has a wrong
    shape or type.
    """
    if track is not None:
        check_track(track, name)
    if isinstance(source, str | os.PathLike):
        recording = audio.load(source, track)
        name = str(source)
    elif track is not None:
        raise UserError(f"track={track} is of a file, and {name} is none")
    elif isinstance(source, Audio):
        recording = source
    else:
        recording = _from_array(source, sample_rate, name)
    peak = float(max(recording.samples.max(), -recording.samples.min()))
    if peak >= audio.TOO_LOUD:
        raise UserError(
            f"{name} has a sample of {peak:.3g} times full scale; allowed are less than "
            f"{audio.TOO_LOUD:g}"
        )
    if peak < 10 ** (audio.SILENT_DB / 20):
        level = f"{20 * math.log10(peak):.0f} dBFS" if peak else "all zeros"
        raise UserError(
            f"{name} is silent ({level}); its loudest sample must reach {audio.SILENT_DB:.0f} dBFS"
        )
    return recording


def check_sample_rate(sample_rate: Any, sources: Sequence[Any], items: Sequence[Item]) -> None:
    """Raises UserError for a `sample_rate` of arrays that no file among the `sources` has.

    `items` are those of the files. Where one of the sources is an array, the rate is that one's.
    """
    decoded = str | os.PathLike | Audio | None
    if sample_rate is None or not all(isinstance(source, decoded) for source in sources):
        return
    for item in items:
        rate = item.recording.sample_rate
        if rate != sample_rate:
            raise UserError(
                f"sample_rate={shown(sample_rate)} is of an array, and {item.name} is a file of "
                f"{rate} Hz: leave it out"
            )


def check_track(track: Any, name: str) -> None:
    """Raises UserError unless `track` can be the number of an audio track."""
    if not isinstance(track, int) or isinstance(track, bool) or track < 1:
        raise UserError(f"track of {name} must be a whole number from 1, not {track!r}")


def warn(*notes: Sequence[str]) -> None:
    """Emits what is to be known about recordings and their prompts as Python warnings."""
    for note in itertools.chain(*notes):
        warnings.warn(note, stacklevel=3)


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
    rate = audio.check_rate(sample_rate)
    samples = np.atleast_2d(samples).astype(np.float32, copy=False)
    if not samples.size:
        raise UserError(f"{name} has no samples")
    if samples.shape[0] > samples.shape[1]:
        raise UserError(
            f"{name} has {samples.shape[0]} channels of {samples.shape[1]} samples: transposed?"
        )
    if not audio.all_finite(samples):
        raise UserError(f"{name} has samples that are NaN or infinite")
    return Audio(samples, rate)


def check_spans(spans: Any, seconds: float, name: str) -> tuple[Span, ...]:
    """Checks spans against a recording of `seconds`; an end up to 50 ms beyond it is cut there.

    Raises UserError for a malformed span or one outside the recording.
    """
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
    """Returns `[["+", 1.0, 2.5], ...]` as typed tuples; the recording is not known yet.

    Raises UserError for a malformed span.
    """
    if isinstance(spans, str) or not isinstance(spans, Sequence):
        raise UserError(
            f"spans of {name} must be a list like [['+', 1.0, 2.5]], not {shown(spans)}"
        )
    return tuple(_parse_span(span, name) for span in spans)


def _parse_span(span: Any, name: str) -> Span:
    if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 3:
        raise UserError(
            f"span {shown(span)} of {name} must be [token, start, end], e.g. ['+', 1.0, 2.5]"
        )
    token = span[0]
    if not isinstance(token, str) or token not in TOKENS:
        raise UserError(
            f"span token {shown(token)} of {name} is unknown; "
            "allowed: '+' (sounds) and '-' (does not)"
        )
    try:
        start, end = float(span[1]), float(span[2])
    except (TypeError, ValueError):
        raise UserError(
            f"span {shown(span)} of {name} must have its start and end in seconds"
        ) from None
    except OverflowError:
        start = end = math.inf
    if not (math.isfinite(start) and math.isfinite(end)):
        raise UserError(f"span {shown(span)} of {name} must have finite times")
    return token, start, end


def check_text(text: Any, name: str) -> str:
    """Returns the text of a prompt; "" if there is none, or nothing but spaces and punctuation.

    Raises UserError for what is no text.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"text of {name} must be a string, not {shown(text)}")
    if half := find_surrogate(text):
        raise UserError(
            f"text of {name} has half of a character ({half}): it was cut, or is no UTF-8"
        )
    return text if has_words(text) else ""


def check_texts(
    texts: Any, spans: Any, name: str, *, normalizes: bool = False
) -> list[tuple[str, tuple[Span, ...]]]:
    """Returns several texts of one recording, each with its spans, which are not yet checked.

    `spans` is None, or a list with a list of spans (or None) for each text. Raises UserError for
    no text, for one without words, and for one that is there twice, or is so to a model that
    `normalizes` texts.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise UserError(f"several texts of {name} must be a list of them, not {shown(texts)}")
    checked = [check_text(text, name) for text in texts]
    forms = [normalize(words) if normalizes else words for words in checked]
    for number, text in enumerate(texts):
        if not checked[number]:
            raise UserError(f"text {shown(text)} of {name} has no words: each stem needs some")
        first = texts[forms.index(forms[number])]
        if first != text:
            raise UserError(
                f"texts {shown(first)} and {shown(text)} of {name} are one to this model, which "
                "reads neither capitals nor final full stops"
            )
        if checked.count(text) > 1:
            raise UserError(f"text {shown(text)} of {name} is there twice")
    own = [()] * len(checked) if spans is None else spans
    is_list = isinstance(own, Sequence) and len(own) == len(checked)
    if not is_list or not all(one is None or isinstance(one, list | tuple) for one in own):
        raise UserError(
            f"spans of {name} must be a list with a list of spans for each of {len(checked)} "
            "texts, because a span says when one sound sounds"
        )
    return [(text, parse_spans(one or (), name)) for text, one in zip(checked, own, strict=True)]


def require_prompt(text: str, spans: Any, video: Any, name: str, like: Any = None) -> None:
    """Raises UserError where nothing says what to separate; `text` is checked already."""
    if not text and not spans and video is None and like is None:
        raise UserError(
            f"nothing says what to separate from {name}: give a text with words, spans, a video or "
            "an example (or unprompted, to let the model choose)"
        )


def check_path(path: str, name: str) -> None:
    """Raises UserError for a path that no file can have."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise UserError(f"{name} {shown(path)} has half of a character: no file has it") from None
    if b"\0" in encoded:
        raise UserError(f"{name} {shown(path)} has a zero byte: no file has it")


def load_noise(path: str | os.PathLike) -> np.ndarray:
    """Reads an array saved with `numpy.save`; pickled objects are a UserError."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"no noise file at {path}")
    try:
        # Mapped: a header may claim more than the file or the memory holds.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, SyntaxError) as error:
        raise UserError(f"{path} is no .npy array of numbers: {first_line(error)}") from None


def draw_noise(
    seed: int, frames: int, channels: int, candidate: int = 0
) -> Float[np.ndarray, "frames channels"]:
    """Draws standard normal noise; a longer draw starts with the shorter one.

    So padding a recording does not change the noise of its frames.
    """
    seeds = (seed, candidate) if candidate else seed
    return np.random.default_rng(seeds).standard_normal((frames, channels), np.float32)


def check_noise(
    noise: Any, frames: int, channels: int, rows: int = 1, name: str = "this recording"
) -> Float[np.ndarray, "rows frames channels"]:
    """Returns a caller's noise with one row per candidate; a single row needs no axis for it.

    Raises UserError for another shape or type, or numbers that are not finite.
    """
    noise = np.asarray(noise)
    needed = (rows, frames, channels)
    fits = noise.shape == needed or (rows == 1 and noise.shape == needed[1:])
    if not fits or noise.dtype.kind != "f":
        shape, axes = (needed, "candidates, frames") if rows > 1 else (needed[1:], "frames")
        raise UserError(
            f"noise is {noise.dtype} of shape {noise.shape}; {name} needs floats of shape "
            f"{shape} ({axes}, twice the latent channels)"
        )
    if not np.isfinite(noise).all():
        raise UserError("noise has values that are NaN or infinite")
    return noise.reshape(needed).astype(np.float32)


def per_item(name: str, value: Any, count: int) -> list:
    """Returns one value for each of `count` recordings; raises UserError for another number."""
    if value is None:
        return [None] * count
    counted = hasattr(value, "__len__") and not isinstance(value, str)
    if not counted or len(value) != count:
        got = f"{len(value)} values" if counted else repr(value)
        raise UserError(f"{name} needs one value for each of {count} recordings, got {got}")
    return list(value)
