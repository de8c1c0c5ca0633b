"""Spans in which a recording is not silent, and their overlap with spans of a prompt.

Arithmetic: docs/scoring.md, "Sound activity". As in the reference it works on 16-bit integers,
so that spans equal the reference's to the millisecond.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_audio_jax.bounds import Checked, Decibels, Size
from sam_audio_jax.errors import UserError

RATE = 24_000  # Hz; recordings are resampled to it first
PER_MS = RATE // 1000  # samples in a millisecond
PEAK_STEP_MS = 100  # between starts of the windows among which the loudest is searched
STEP_MS = 10  # between starts of the windows that are tested for silence
FULL_SCALE = 32_768
MODES = ("rel_to_max", "abs")
METRICS = ("iou", "precision", "recall")

TimeRange = tuple[float, float]  # start and end in seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivityConfig(Checked, where="activity"):
    """What counts as silence; the defaults are the reference ranker's."""

    mode: str = "rel_to_max"  # threshold_db is relative to the loudest window; "abs": dBFS
    threshold_db: Decibels = -40.0
    window_ms: Size = 250  # also the shortest silence; sounds may be of any length

    def __post_init__(self):
        super().__post_init__()
        if self.mode not in MODES:
            raise UserError(f"activity.mode={self.mode!r} is unknown; allowed: {', '.join(MODES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activity:
    """The spans of a clip that are not silent."""

    spans: list[TimeRange]
    peak: float  # RMS of the loudest window, full scale 1
    threshold_db: float  # dBFS; minus infinity for a clip of zeros
    silence_ratio: float  # 0..1, the part of the clip outside the spans


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """Agreement of detected spans with reference spans; a ratio with denominator 0 is 0."""

    iou: float
    precision: float
    recall: float


def runs(active: Bool[np.ndarray, " cells"]) -> list[tuple[int, int]]:
    """Returns the (start, end) of every run of True, end excluded."""
    padded = np.zeros(len(active) + 2, bool)
    padded[1:-1] = active
    edges = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def to_pcm(wave: Float[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
    """Converts to 16-bit integers as the reference's WAV writer: rounds half to even, clips."""
    scaled = np.rint(wave.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def to_24k(pcm: Int[np.ndarray, " samples"], sample_rate: int) -> Int[np.ndarray, " resampled"]:
    """Resamples to 24 kHz by linear interpolation in the reference's integer arithmetic.

    As in the reference there is no low-pass filter.
    """
    divisor = math.gcd(sample_rate, RATE)
    source, target = sample_rate // divisor, RATE // divisor
    if source == target or not len(pcm):
        return pcm
    position = np.arange((len(pcm) - 1) * target // source + 1) * source  # in 1/target samples
    right = -(-position // target)  # index of the sample at or after each position
    weight = right * target - position  # of the sample before, out of `target`
    padded = np.concatenate(([0], pcm)).astype(np.int64) << 16
    mixed = padded[right] * weight + padded[right + 1] * (target - weight)
    return (np.trunc(mixed / target).astype(np.int64) >> 16).astype(np.int16)


class _Windows:
    """Integer RMS of any window of a clip, from a cumulative sum of squares."""

    def __init__(self, pcm: Int[np.ndarray, " samples"], window_ms: int):
        # In the order of the reference's operations, which decides where a half is rounded to.
        self.length_ms = round(1000 * (len(pcm) / RATE))
        self.size = window_ms * PER_MS
        padded = np.zeros(max(len(pcm), self.length_ms * PER_MS), np.int64)
        padded[: len(pcm)] = pcm  # zeros fill the last millisecond, as lengths are rounded
        self.cumulative = np.concatenate(([0], np.cumsum(np.square(padded))))

    def rms(self, starts_ms: Int[np.ndarray, " windows"]) -> Int[np.ndarray, " windows"]:
        start = starts_ms * PER_MS
        total = self.cumulative[start + self.size] - self.cumulative[start]
        return np.sqrt(total / self.size).astype(int)


def find_activity(
    wave: Float[np.ndarray, " samples"], sample_rate: int, config: ActivityConfig | None = None
) -> Activity:
    """Detects the spans of a mono clip that are not silent, to the millisecond.

    A clip shorter than one window counts as sound throughout, as in the reference.
    """
    config = config or ActivityConfig()
    windows = _Windows(to_24k(to_pcm(wave), sample_rate), config.window_ms)
    length = windows.length_ms
    last = length - config.window_ms
    peak = windows.rms(np.arange(0, last + 1, PEAK_STEP_MS)).max(initial=0) / FULL_SCALE
    peak_db = 20 * math.log10(peak) if peak else -math.inf
    threshold_db = config.threshold_db + (peak_db if config.mode == "rel_to_max" else 0.0)
    if last < 0:
        sounding = [(0, length)]
    else:
        starts = np.union1d(np.arange(0, last + 1, STEP_MS), last)
        quiet = starts[windows.rms(starts) <= 10 ** (threshold_db / 20) * FULL_SCALE]
        silent = np.zeros(length, bool)
        for start in quiet:  # adjacent and overlapping windows join into one silence
            silent[start : start + config.window_ms] = True
        sounding = runs(~silent)
    spans = [(start / 1000, end / 1000) for start, end in sounding]
    sounding_ms = sum(end - start for start, end in sounding)
    return Activity(
        spans=spans,
        peak=float(peak),
        threshold_db=threshold_db,
        silence_ratio=1 - sounding_ms / length if length else 0.0,
    )


def overlap(
    detected: Sequence[TimeRange], reference: Sequence[TimeRange], *, merge: bool = False
) -> Overlap:
    """Measures the agreement of two lists of spans in seconds.

    As in the reference implementation, spans of one list that overlap count twice, so that
    precision can exceed 1; with `merge` the spans of each list are merged first.
    """
    if merge:
        detected, reference = merged(detected), merged(reference)
    shared = sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for start, end in detected
        for other_start, other_end in reference
    )
    lengths = [sum(end - start for start, end in spans) for spans in (detected, reference)]
    union = sum(lengths) - shared
    return Overlap(
        iou=shared / union if union else 0.0,
        precision=shared / lengths[0] if lengths[0] else 0.0,
        recall=shared / lengths[1] if lengths[1] else 0.0,
    )


def merged(spans: Sequence[TimeRange]) -> list[TimeRange]:
    """Returns the spans in time order; spans that touch or overlap are merged into one."""
    joined: list[TimeRange] = []
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
    """Scores how well a candidate's sound covers the prompt's "+" spans.

    "-" spans are ignored (our choice). Raises UserError for an unknown metric.
    """
    if metric not in METRICS:
        raise UserError(f"activity metric {metric!r} is unknown; allowed: {', '.join(METRICS)}")
    reference = [(start, end) for token, start, end in spans if token == "+"]
    detected = find_activity(wave, sample_rate, config).spans
    return getattr(overlap(detected, reference), metric)
