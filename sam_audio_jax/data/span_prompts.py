"""Span prompts from the activity of the target."""

import itertools
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool

from sam_audio_jax.scorers.activity import runs
from sam_audio_jax.separator.prompts import Span


def positive(active: Bool[np.ndarray, " frames"], frame_rate: float) -> list[Span]:
    """One "+" span per run of active frames.

    Bounds are in the middle of frames, so that rounding up gives the run again.
    """
    return [
        ("+", max(0.0, (s - 0.5) / frame_rate), (e - 0.5) / frame_rate) for s, e in runs(active)
    ]


def negative(active: Bool[np.ndarray, " frames"], frame_rate: float) -> list[Span]:
    """One "-" span per run of silent frames."""
    return [("-", start, end) for _, start, end in positive(~active, frame_rate)]


def merged(spans: list[Span], most: int) -> list[Span]:
    """At most `most` spans of one token: those with the shortest gaps between them are joined."""
    spans = list(spans)
    while len(spans) > most:
        gaps = [after[1] - before[2] for before, after in itertools.pairwise(spans)]
        first = int(np.argmin(gaps))
        spans[first : first + 2] = [(spans[first][0], spans[first][1], spans[first + 1][2])]
    return spans


def jittered(
    spans: Iterable[Span], most_s: float, seconds: float, rng: np.random.Generator
) -> list[Span]:
    """The spans with each bound moved by up to `most_s`, within 0 to `seconds`.

    People do not mark a sound exactly. A span that would become empty stays as it is.
    """
    moved = []
    for token, start, end in spans:
        a, b = np.clip(np.array([start, end]) + rng.uniform(-most_s, most_s, 2), 0.0, seconds)
        moved.append((token, float(a), float(b)) if a < b else (token, start, end))
    return moved
