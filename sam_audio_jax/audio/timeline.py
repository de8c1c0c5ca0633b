"""Decoded pieces on the player's clock: holes are filled with silence, overlaps are cut.

Containers store the time of each packet. A player follows these times; a decoder that only joins
what it decodes plays everything after a lost packet too early. Times also jitter (a container that
rounds to milliseconds, a capture from a network), which must neither insert clicks nor drop
samples. So a deviation counts if it is sharp, above the jitter of the file, and persists, or if it
reaches `LIMIT_S`, as in FFmpeg's `aresample=async=1`. Where times and samples drift apart steadily,
since the clock of a recorder was not that of its sound card, the samples are stretched.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import av
import numpy as np
from jaxtyping import Float, Float32

from sam_audio_jax.audio.channels import mixing_weights, mono
from sam_audio_jax.audio.resampling import resample

LEAST_S = 0.015  # a smaller deviation is rounding or jitter: Opus packets have 20 ms
LIMIT_S = 0.1  # a larger one is never jitter
LONGEST_S = 600.0  # a hole above this, and beyond the recording's stated end, is a damaged time
RESTART_S = 0.25  # a clock that jumps back, to within this of its beginning, began anew
NEW_CLOCK_S = 10.0  # FFmpeg's dts_delta_threshold
STEADY_S = 0.002  # below this jitter a drift can be seen
MOST_DRIFT = 0.05  # of the time; more is no clock's
LAYOUTS = {2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
FINE = 10_000_000  # a rate in which a drift is a whole number
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


@dataclasses.dataclass(frozen=True)
class Timing:
    """Where pieces lie: the silence before each in seconds (negative: cut), and their stretch."""

    silences: Float[np.ndarray, " pieces"]
    stretch: Float[np.ndarray, " pieces"]  # 1.01: lasts 1 % longer than its samples say


def lay_out(
    times: Float[np.ndarray, " pieces"],
    seconds: Float[np.ndarray, " pieces"],
    *,
    end_s: float = 0.0,
    restarts: bool = False,
) -> Timing:
    """Returns where pieces lie by their times, NaN where one has none.

    `end_s` is where the recording ends by its header. With `restarts` the clock of the container
    may jump (an MPEG transport stream that was joined from two): jumps above 10 s, which FFmpeg
    takes for a new clock, leave no gap.
    """
    silences, stretch = np.zeros(len(times)), np.ones(len(times))
    known = np.flatnonzero(np.isfinite(times))
    if len(known) < 2:
        return Timing(silences, stretch)
    expected = np.concatenate([[0.0], np.cumsum(seconds)[:-1]])
    deviation = (times - expected)[known]
    jitter = float(np.median(np.abs(np.diff(deviation))))
    steps = _steps(deviation, jitter)
    for number, gap in steps.items():
        here = known[number]
        began_anew = gap < -1 and times[here] - times[known[0]] < RESTART_S
        too_long = gap > LONGEST_S and times[here] > end_s + LONGEST_S
        if not (began_anew or too_long or (restarts and abs(gap) > NEW_CLOCK_S)):
            silences[here] = gap
    if jitter <= STEADY_S:
        bounds = [0, *steps, len(known)]
        for first, stop in itertools.pairwise(bounds):
            ends = (
                deviation[max(first, stop - 5) : stop],
                deviation[first : first + 5][: stop - first],
            )
            drift = np.median(ends[0]) - np.median(ends[1])
            run = slice(known[first], known[stop] if stop < len(known) else None)
            lasts = seconds[run].sum()
            if LIMIT_S < abs(drift) < MOST_DRIFT * lasts:
                stretch[run] = 1 + drift / lasts
    return Timing(silences, stretch)


def _steps(deviation: Float[np.ndarray, " known"], jitter: float) -> dict[int, float]:
    """Returns where times deviate at once from what the samples say, and by how many seconds."""
    least = min(max(LEAST_S, 9 * jitter), LIMIT_S)
    steps: dict[int, float] = {}
    begin, shift = 0, deviation[0]
    for number in range(1, len(deviation)):
        if jitter <= STEADY_S:  # a drift is no step
            shift = np.median(deviation[max(begin, number - 5) : number])
        gap = deviation[number] - shift
        sharp = abs(deviation[number] - deviation[number - 1]) >= least / 2
        if abs(gap) < least or not (sharp or abs(gap) >= LIMIT_S):
            continue
        following = deviation[number : number + 5] - shift
        persistent = following[np.sign(gap) * following >= least]
        if 2 * len(persistent) <= len(following):
            continue
        if jitter > STEADY_S:
            gap = np.median(persistent[np.abs(persistent - gap) < least])
        shift += gap
        steps[number], begin = float(gap), number
    return steps


def place(pieces: Sequence[Piece], layout: Timing) -> list[Piece]:
    """Returns the pieces as long ones of one format each, with their gaps filled or cut."""
    runs: list[tuple[tuple[int, int, float], list[np.ndarray]]] = []
    owed_s = 0.0  # seconds to be cut
    for piece, silence, stretch in zip(pieces, layout.silences, layout.stretch, strict=True):
        if not runs or runs[-1][0] != (*piece.format, stretch):
            runs.append(((*piece.format, stretch), []))
        owed_s = min(0.0, owed_s) + silence
        count = round(owed_s * piece.sample_rate)
        if count > 0:
            runs[-1][1].append(np.zeros((len(piece.samples), count), np.float32))
            owed_s = 0.0
        cut = min(max(-count, 0), piece.samples.shape[1])
        owed_s += cut / piece.sample_rate
        runs[-1][1].append(piece.samples[:, cut:])
    return [_run(parts, rate, stretch) for (rate, _, stretch), parts in runs]


def _run(parts: list[np.ndarray], rate: int, stretch: float) -> Piece:
    samples = np.concatenate(parts, axis=1)
    if stretch != 1:
        samples = resample(samples, FINE, round(FINE * stretch))
    return Piece(samples, rate)


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
        resample(with_channels(piece, channels), piece.sample_rate, rate) for piece in pieces
    ]
    other = next(i for i, form in enumerate(formats) if form != formats[0])
    at = sum(piece.seconds for piece in pieces[:other])
    note = (
        f"changes from {_words(formats[0])} to {_words(formats[other])} at {at:.2f} s; "
        f"all of it is brought to {_words((rate, channels))}"
    )
    return Piece(np.concatenate(samples, axis=1), rate), note


def with_channels(piece: Piece, channels: int) -> Float32[np.ndarray, "channels_out samples"]:
    """Returns the same sound with another number of channels, mixed as FFmpeg mixes layouts.

    One channel of several is their mean, or another sum where the mean would lose sound.
    """
    samples, here = piece.samples, len(piece.samples)
    if here == channels:
        return samples
    if channels == 1 or here == 1 or not {here, channels} <= LAYOUTS.keys():
        one = mono(samples, mixing_weights(samples, piece.sample_rate))
        return np.repeat(one[None], channels, axis=0)
    # Interleaved: PyAV has no room for 8 planes.
    frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1), "flt", LAYOUTS[here])
    frame.sample_rate = 48_000  # any: it stays
    mixed = av.AudioResampler("flt", LAYOUTS[channels], 48_000)
    pieces = [piece.to_ndarray() for part in (frame, None) for piece in mixed.resample(part)]
    return np.concatenate(pieces, axis=1).reshape(-1, channels).T


def _words(form: tuple[int, int]) -> str:
    rate, channels = form
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    return f"{rate} Hz {layout}"
