"""Decoded pieces on the player's clock: holes are filled with silence, overlaps are cut.

Containers store the time of each packet. A player follows these times; a decoder that only joins
what it decodes plays everything after a lost packet too early. Times also jitter (a container that
rounds to milliseconds, a capture from a network), which must neither insert clicks nor drop
samples. So a deviation counts if it is sharp, above the jitter of the file, and lasts; one that
grows slowly counts at `LIMIT_S`, like in FFmpeg's `aresample=async=1`.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from sam_audio_jax.audio.channels import mono
from sam_audio_jax.audio.resampling import resample

LEAST_S = 0.015  # a smaller deviation is rounding or jitter: Opus packets have 20 ms
LIMIT_S = 0.1  # a larger one is never jitter
LONGEST_S = 600.0  # a hole above this, and beyond the recording's stated end, is a damaged time
RESTART_S = 1.0  # a clock that jumps back, to within this of its beginning, began anew
PERSISTENT_S = 0.5  # of a format that is no damaged packet's


@dataclasses.dataclass(frozen=True)
class Piece:
    """Samples of one packet, or of a part of a file."""

    samples: Float32[np.ndarray, "channels samples"]
    sample_rate: int
    time_s: float = math.nan  # on the container's clock; NaN: directly after the piece before

    @property
    def seconds(self) -> float:
        """Returns how long it sounds."""
        return self.samples.shape[1] / self.sample_rate

    @property
    def format(self) -> tuple[int, int]:
        """Returns sample rate and channels."""
        return self.sample_rate, len(self.samples)


def gaps(
    times: Float[np.ndarray, " pieces"],
    seconds: Float[np.ndarray, " pieces"],
    *,
    end_s: float = 0.0,
    restarts: bool = False,
) -> Float[np.ndarray, " pieces"]:
    """Returns the silence before each piece in seconds; negative: how much of it is cut.

    `end_s` is where the recording ends by its header. With `restarts` the clock of the container
    may jump (an MPEG transport stream that was joined from two): jumps above 10 s, which FFmpeg
    takes for a new clock, leave no gap.
    """
    out = np.zeros(len(times))
    expected = np.concatenate([[0.0], np.cumsum(seconds)[:-1]])
    known = np.flatnonzero(np.isfinite(times))
    if len(known) < 2:
        return out
    deviation = (times - expected)[known]
    jitter = float(np.median(np.abs(np.diff(deviation))))
    least = min(max(LEAST_S, 9 * jitter), LIMIT_S)
    shift, first = deviation[0], times[known[0]]
    for number, here in enumerate(known):
        gap = deviation[number] - shift
        if abs(gap) < least:
            continue
        sharp = abs(deviation[number] - deviation[max(number - 1, 0)]) >= least / 2
        if not (sharp or abs(gap) >= LIMIT_S):
            continue
        following = deviation[number : number + 5] - shift
        persistent = following[np.sign(gap) * following >= least]
        if 2 * len(persistent) <= len(following):
            continue
        near = persistent[np.abs(persistent - gap) < least]
        gap = float(np.median(near)) if jitter > 1e-3 else gap
        shift += gap
        began_anew = gap < -RESTART_S and times[here] - first < RESTART_S
        too_long = gap > LONGEST_S and times[here] > end_s + LONGEST_S
        if not (began_anew or too_long or (restarts and abs(gap) > 10)):
            out[here] = gap
    return out


def place(pieces: Sequence[Piece], silences: Float[np.ndarray, " pieces"]) -> list[Piece]:
    """Returns the pieces as long ones of one format each, with their gaps filled or cut."""
    runs: list[tuple[tuple[int, int], list[np.ndarray]]] = []
    owed_s = 0.0  # seconds to be cut
    for piece, silence in zip(pieces, silences, strict=True):
        if not runs or runs[-1][0] != piece.format:
            runs.append((piece.format, []))
        owed_s = min(0.0, owed_s) + silence
        count = round(owed_s * piece.sample_rate)
        if count > 0:
            runs[-1][1].append(np.zeros((len(piece.samples), count), np.float32))
            owed_s = 0.0
        cut = min(max(-count, 0), piece.samples.shape[1])
        owed_s += cut / piece.sample_rate
        runs[-1][1].append(piece.samples[:, cut:])
    return [Piece(np.concatenate(parts, axis=1), form[0]) for form, parts in runs]


def join(pieces: Sequence[Piece]) -> tuple[Piece, str | None]:
    """Returns one piece, in the first rate and channels that last, and a note if there are others.

    That is the format in which FFmpeg's command writes such a file.
    """
    pieces = [piece for piece in pieces if piece.samples.shape[1]] or list(pieces[:1])
    formats = [piece.format for piece in pieces]
    if len(set(formats)) == 1:
        if len(pieces) == 1:
            return pieces[0], None
        return Piece(np.concatenate([p.samples for p in pieces], axis=1), formats[0][0]), None
    total = sum(piece.seconds for piece in pieces)
    persistent = [piece for piece in pieces if piece.seconds >= min(PERSISTENT_S, total / 4)]
    rate, channels = (persistent or [max(pieces, key=lambda piece: piece.seconds)])[0].format
    samples = [
        resample(with_channels(piece.samples, channels), piece.sample_rate, rate)
        for piece in pieces
    ]
    other = next(i for i, form in enumerate(formats) if form != formats[0])
    at = sum(piece.seconds for piece in pieces[:other])
    note = (
        f"changes from {_words(formats[0])} to {_words(formats[other])} at {at:.2f} s; "
        f"all of it is brought to {_words((rate, channels))}"
    )
    return Piece(np.concatenate(samples, axis=1), rate), note


def with_channels(
    samples: Float32[np.ndarray, "channels samples"], channels: int
) -> Float32[np.ndarray, "channels_out samples"]:
    """Returns the same sound with another number of channels."""
    if len(samples) == channels:
        return samples
    return np.repeat(mono(samples)[None], channels, axis=0)


def _words(form: tuple[int, int]) -> str:
    rate, channels = form
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    return f"{rate} Hz {layout}"
