"""Where a recording sounds, and how well that fits given spans (docs/scoring.md, "Sound activity").

In 16-bit integers from the first step on, so that spans are exact to the millisecond.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_audio_jax.errors import UserError

RATE = 24_000  # everything is measured at this rate
PER_MS = RATE // 1000  # samples in a millisecond
PEAK_STEP_MS = 100  # between the windows that find the loudest
STEP_MS = 10  # between the windows that find silence
FULL_SCALE = 32_768
MODES = ("rel_to_max", "abs")
METRICS = ("iou", "precision", "recall")

Interval = tuple[float, float]  # start and end in seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivityConfig:
    """What counts as silence; the defaults are the reference ranker's."""

    mode: str = "rel_to_max"  # dB below the loudest window; "abs": dBFS
    threshold_db: float = -40.0
    window_ms: int = 250  # no shorter silence exists; there is no shortest sound

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"activity.mode={self.mode!r} is unknown; allowed: {', '.join(MODES)}")
        if self.window_ms < 1:
            raise UserError(f"activity.window_ms={self.window_ms} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activity:
    """The sounding spans of a clip."""

    spans: list[Interval]
    peak: float  # RMS of the loudest window, full scale 1
    threshold_db: float  # dBFS; minus infinity for a clip of zeros
    silence_ratio: float  # share of the clip outside the spans


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """How found spans agree with wanted ones; a ratio without a denominator is 0."""

    iou: float
    precision: float
    recall: float


def runs(active: Bool[np.ndarray, " cells"]) -> list[tuple[int, int]]:
    """The (start, end) of every run of True, end excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def to_pcm(wave: Float[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
    """16-bit integers as the reference's WAV writer makes them: halves to even, saturated."""
    scaled = np.rint(wave.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def to_24k(pcm: Int[np.ndarray, " samples"], sample_rate: int) -> Int[np.ndarray, " resampled"]:
    """Linear interpolation without a low-pass, in the integer arithmetic of the reference."""
    divisor = math.gcd(sample_rate, RATE)
    source, target = sample_rate // divisor, RATE // divisor
    if source == target or not len(pcm):
        return pcm
    place = np.arange((len(pcm) - 1) * target // source + 1) * source
    after = -(-place // target)
    share = after * target - place  # of the sample before, in parts of `target`
    padded = np.concatenate(([0], pcm)).astype(np.int64) << 16
    mixed = padded[after] * share + padded[after + 1] * (target - share)
    return (np.trunc(mixed / target).astype(np.int64) >> 16).astype(np.int16)


class _Windows:
    """Integer RMS of any window of a clip, from a running sum of squares."""

    def __init__(self, pcm: Int[np.ndarray, " samples"], window_ms: int):
        self.length_ms = round(1000 * len(pcm) / RATE)
        self.size = window_ms * PER_MS
        padded = np.zeros(max(len(pcm), self.length_ms * PER_MS), np.int64)
        padded[: len(pcm)] = pcm  # a window may reach half a millisecond past the end
        self.sums = np.concatenate(([0], np.cumsum(np.square(padded))))

    def rms(self, starts_ms: Int[np.ndarray, " windows"]) -> Int[np.ndarray, " windows"]:
        begin = starts_ms * PER_MS
        return np.sqrt((self.sums[begin + self.size] - self.sums[begin]) / self.size).astype(int)


def find_activity(
    wave: Float[np.ndarray, " samples"], sample_rate: int, config: ActivityConfig | None = None
) -> Activity:
    """The sounding spans of a mono clip, to the millisecond."""
    config = config or ActivityConfig()
    windows = _Windows(to_24k(to_pcm(wave), sample_rate), config.window_ms)
    length = windows.length_ms
    last = length - config.window_ms
    peak = windows.rms(np.arange(0, last + 1, PEAK_STEP_MS)).max(initial=0) / FULL_SCALE
    relative = 20 * math.log10(peak) if peak else -math.inf
    threshold_db = config.threshold_db + (relative if config.mode == "rel_to_max" else 0.0)
    if last < 0:
        sounding = [(0, length)]
    else:
        starts = np.union1d(np.arange(0, last + 1, STEP_MS), last)
        quiet = starts[windows.rms(starts) <= 10 ** (threshold_db / 20) * FULL_SCALE]
        silent = np.zeros(length, bool)
        for start in quiet:  # windows that touch or overlap are one silence
            silent[start : start + config.window_ms] = True
        sounding = runs(~silent)
    spans = [(start / 1000, end / 1000) for start, end in sounding]
    heard = sum(end - start for start, end in sounding)
    return Activity(
        spans=spans,
        peak=float(peak),
        threshold_db=threshold_db,
        silence_ratio=1 - heard / length if length else 0.0,
    )


def overlap(
    found: Sequence[Interval], wanted: Sequence[Interval], *, merge: bool = False
) -> Overlap:
    """Agreement of two lists of spans in seconds.

    As in the reference, spans of one list that overlap count twice and precision can exceed 1,
    unless they are merged first.
    """
    if merge:
        found, wanted = merged(found), merged(wanted)
    shared = sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for start, end in found
        for other_start, other_end in wanted
    )
    lengths = [sum(end - start for start, end in spans) for spans in (found, wanted)]
    union = sum(lengths) - shared
    return Overlap(
        iou=shared / union if union else 0.0,
        precision=shared / lengths[0] if lengths[0] else 0.0,
        recall=shared / lengths[1] if lengths[1] else 0.0,
    )


def merged(spans: Sequence[Interval]) -> list[Interval]:
    """Spans in time order, those that touch or overlap made one."""
    joined: list[Interval] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def span_score(
    wave: Float[np.ndarray, " samples"],
    sample_rate: int,
    spans: Sequence[tuple[str, float, float]],
    *,
    metric: str = "iou",  # or precision, recall
    config: ActivityConfig | None = None,
) -> float:
    """How well a candidate sounds where its "+" spans say; "-" spans are ignored (ours)."""
    if metric not in METRICS:
        raise UserError(f"activity metric {metric!r} is unknown; allowed: {', '.join(METRICS)}")
    wanted = [(start, end) for token, start, end in spans if token == "+"]
    found = find_activity(wave, sample_rate, config).spans
    return getattr(overlap(found, wanted), metric)
