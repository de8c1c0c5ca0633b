"""What a caller should know of accepted prompts: those, or parts of them, that have no effect.

Each is a line without the name of the item, e.g. "span + 1-1.001 s is shorter than a frame ...".
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.separator.prompts import Span, frame_spans

# On 160 held-out mixtures, by text, 56 % of the targets of sounds that were not there were below
# this level and 6 % of those of sounds that were, nearly all of which the model had not found.
FAINT_DB = -15.0
QUIET_DB = -40.0  # of the loudest second of a recording; what is below it is not compared


def text_notes(original: str | None, text: str, tokenizer: Any) -> Iterator[str]:
    """Of the `text` that is left of the `original` one: no words in it, or more than is read."""
    if original and not text:
        yield "its text has no words: it is separated as without a text"
    if text and hasattr(tokenizer, "describe_cut") and (cut := tokenizer.describe_cut(text)):
        yield f"its text {cut}"


def span_notes(
    spans: Sequence[Span], frames: int, sample_rate: int, hop: int, ignored: Sequence[str] = ()
) -> Iterator[str]:
    """Of spans that mark no frame of an item of so many, and of tokens that the model ignores.

    There is one note for each span without effect, and none for the others.
    """
    owner = np.full(frames, -1)
    on_frames = list(frame_spans(spans, sample_rate=sample_rate, hop=hop))
    for number, (_, begin, end) in enumerate(on_frames):
        owner[begin:end] = number
    for number, ((token, start, end), (_, first, last)) in enumerate(
        zip(spans, on_frames, strict=True)
    ):
        named = f"span {token} {start:g}-{end:g} s"
        if token in ignored:
            yield f"{named} has no effect: the model was trained without such spans"
        elif last <= first or first >= frames:
            frame_ms = 1_000 * hop / sample_rate
            yield f"{named} has no effect: no frame of {frame_ms:g} ms begins in it"
        elif not (owner == number).any():
            yield f"{named} has no effect: later spans cover it"


def target_notes(
    item: Item,
    target: Float[np.ndarray, " samples"],
    sample_rate: int,
    predicted: Sequence[Span] | None,
) -> Iterator[str]:
    """Of the generated target of an item, and of its spans if they were `predicted`."""
    marked = predicted is None and any(token == "+" for token, _, _ in item.spans)
    yield from faint_notes(target, item.wave, sample_rate, item.text, marked=marked)
    if predicted is not None:
        yield from prediction_notes(item.spans, predicted, item.text)


def prediction_notes(spans: Sequence[Span], predicted: Sequence[Span], text: str) -> Iterator[str]:
    """Of an item whose spans are to be predicted: its own `spans`, and those of its stems."""
    if spans:
        yield "its spans are the caller's: none are predicted"
    elif not text:
        yield "without a text no spans are predicted"
    elif not predicted:
        yield "no spans were found: its text sounds nowhere for the predictor"


def faint_notes(
    target: Float[np.ndarray, " samples"],
    mixture: Float[np.ndarray, " samples"],
    sample_rate: int,
    text: str,
    *,
    marked: bool = False,
) -> Iterator[str]:
    """Of a generated target that is far below its recording in every second of it.

    A sound that is short is loud in its second, so that the length of the recording says nothing.
    Where a span of the caller has `marked` the sound, no advice follows to do so.
    """
    wanted, whole = (_power_by_second(wave, sample_rate) for wave in (target, mixture))
    if not text or not whole.any():
        return
    audible = whole >= 10 ** (QUIET_DB / 10) * whole.max()
    level = 10 * np.log10(max((wanted[audible] / whole[audible]).max(), 1e-10))
    if level < FAINT_DB:
        advice = "" if marked else "; if the sound is there, mark it with a span"
        yield (
            f"hardly anything of {text!r} was found: what the model generated of it is at least "
            f"{-level:.0f} dB below the recording in every second{advice}"
        )


def _power_by_second(
    wave: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, " seconds"]:
    """The mean square of each second, of the last one with zeros to its end."""
    whole = len(wave) // sample_rate * sample_rate
    rows = [wave[:whole].reshape(-1, sample_rate), wave[None, whole:]]
    # Summed up in float64 without a copy of an hour in it.
    sums = [np.einsum("st,st->s", row, row, dtype=np.float64) for row in rows if row.size]
    return np.concatenate(sums) / sample_rate if sums else np.zeros(0)
