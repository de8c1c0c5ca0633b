"""What FFmpeg decodes, on the player's clock: begun, filled, cut and ended as its times say."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from sam_audio_jax.audio.packets import Decoded
from sam_audio_jax.audio.timeline import Piece, lay_out, place

LEAST_S = 0.1  # a smaller difference to what a header says is the padding of an encoder
PADDING_S = 0.25  # at most, of an encoder, behind the end of the sound


def on_the_clock(found: Decoded, *, from_zero: bool = False) -> tuple[list[Piece], list[str]]:
    """Returns long pieces of one format each, and notes on what was decoded.

    With `from_zero` the recording begins at the time 0, whatever was lost there.
    """
    notes = found.notes.copy()
    if not found.pieces:
        return [], notes
    times = np.array([piece.time_s for piece in found.pieces])
    seconds = np.array([piece.seconds for piece in found.pieces])
    layout = lay_out(times, seconds, end_s=found.end_s, restarts=found.restarts)
    silences = layout.silences
    start_s = 0.0 if from_zero else found.start_s
    if times[0] > start_s:  # False if one of them is NaN: not known
        silences[0] += times[0] - start_s
        if from_zero:
            notes.append(f"has lost its first {silences[0]:.2f} s, which are silent")
    notes += _gap_notes(silences[1:], seconds[1:], seconds[0] + silences[0])
    drift = layout.stretch[np.argmax(np.abs(layout.stretch - 1))] - 1
    if drift:
        notes.append(
            f"has a clock that is not its samples': they are stretched by {100 * drift:.3f} %"
        )
    pieces = place(found.pieces, layout)
    if not found.end_s:
        return pieces, notes
    stated_s = found.end_s - (found.start_s if math.isfinite(found.start_s) else 0.0)
    surplus_s = sum(piece.seconds for piece in pieces) - stated_s
    # FFmpeg counts MP4 and MOV from 0 where an edit list cuts them off, or they are in fragments.
    if found.padded and times[0] >= PADDING_S and abs(surplus_s + times[0]) < LEAST_S:
        surplus_s += times[0]
    if found.padded and 0 < surplus_s < PADDING_S:
        pieces[-1] = _without_end(pieces[-1], surplus_s)
    elif stated_s > 0 and abs(surplus_s) > max(LEAST_S, 0.01 * stated_s):
        notes.append(length_note(stated_s, stated_s + surplus_s))
    return pieces, notes


def length_note(stated_s: float, there_s: float) -> str:
    """Returns what to say of a header that states another length than there is."""
    return f"has {there_s:.2f} s of sound, its header says {stated_s:.2f} s"


def _without_end(piece: Piece, surplus_s: float) -> Piece:
    """Cuts the encoder's padding."""
    kept = max(1, piece.samples.shape[1] - round(surplus_s * piece.sample_rate))
    return dataclasses.replace(piece, samples=piece.samples[:, :kept])


def _gap_notes(
    silences: Float[np.ndarray, " pieces"], seconds: Float[np.ndarray, " pieces"], before_s: float
) -> list[str]:
    """Returns a line on the holes that are filled and one on the overlaps that are cut."""
    ends = before_s + np.cumsum(seconds + silences)
    notes = []
    for which, words in (
        (silences > 0, "of holes are silent"),
        (silences < 0, "of overlaps are cut"),
    ):
        if which.any():
            at = np.flatnonzero(which)[0]
            begin = max(0.0, ends[at] - seconds[at] - max(silences[at], 0.0))
            total = abs(silences[which].sum())
            notes.append(
                f"has time stamps by which {total:.2f} s {words}, the first at {begin:.2f} s"
            )
    return notes
