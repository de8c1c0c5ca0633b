"""Text prompts from captions: short lower-case phrases."""

import re
from collections.abc import Collection, Sequence

import numpy as np

from sam_audio_jax.data.recording import Recording
from sam_audio_jax.encoders.text_form import normalize

MUSIC = ("music playing", "music")
UNNAMED = "other"  # stem of a song that is what no other stem is, and has no name to prompt by
SPEAKING = re.compile(r"(man|woman|person|boy|girl|child) speaking\b")
# Of a scene with several sounds at once: speech in a restaurant is not only speech.
SCENE = re.compile(
    r"\b(and|with|among|ambien(t|ce)|atmosphere|scene|background|market|party|square|street|city"
    r"|traffic|restaurant|cafe|bar|playground|children playing|people chattering|harbou?r"
    r"|jungle|forest|battle|station|office|kitchen|radio transmission)\b"
)


def texts_of(recording: Recording) -> tuple[str, ...]:
    """Phrases that may prompt for a recording, finest first: caption, alternatives, coarser."""
    texts = [recording.caption, *recording.alt_captions]
    spoken = SPEAKING.match(recording.caption)
    if spoken or recording.category == "speech":
        texts += [spoken.group()] if spoken else []
        texts.append("speech")
    if recording.stem:
        texts.append(recording.stem)
    elif recording.category == "instrument":
        texts.append(recording.caption.removesuffix(" playing"))
    return tuple(dict.fromkeys(normalize(text) for text in texts))


def claims_of(recording: Recording) -> frozenset[str]:
    """Every phrase that is true of the recording, also those too coarse to prompt for it."""
    texts = set(texts_of(recording))
    texts |= {SPEAKING.sub("person speaking", text) for text in texts}
    if recording.category in ("music", "instrument"):
        texts |= set(MUSIC)
    return frozenset(texts)


def is_single(recording: Recording) -> bool:
    """Whether a recording holds a single event: as its manifest says, else by its caption."""
    if recording.single is not None:
        return recording.single
    return SCENE.search(normalize(recording.caption)) is None


def unambiguous(texts: Sequence[str], others: Collection[str]) -> tuple[str, ...]:
    """The texts that do not also hold for the other source of the mixture."""
    return tuple(text for text in texts if text not in others)


def choose(texts: Sequence[str], finest_share: float, rng: np.random.Generator) -> str:
    """The first text with probability `finest_share`, else any of them."""
    if rng.random() < finest_share:
        return texts[0]
    return texts[int(rng.integers(len(texts)))]
