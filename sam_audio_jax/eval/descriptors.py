"""What is known of a mixture before it is separated; reports and comparisons are split by it."""

import math
from typing import Any

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.eval.mixtures import activity
from sam_audio_jax.eval.recorded import Recorded, Rendered, Wave
from sam_audio_jax.scorers.activity import TimeRange, merged

# Descriptor -> how a report calls it.
DESCRIPTORS = {
    "overlap": "share of the target's time in which other sounds sound, too",
    "sounding": "share of the mixture in which the target sounds",
    "loudness_lufs": "loudness of the mixture, LUFS",
    "ratio_db": "level of the true target over the true residual, dB",
    "seconds": "length, s",
    "sources": "number of sources",
}
LEVELS = "levels_db"  # of `PARTS` equal parts of the mixture: by them it is known again
PARTS = 8
SILENT_DB = -60.0  # the lowest of these levels: below, decoders differ


def describe(recorded: Recorded) -> dict[str, Any]:
    """Id, setting, levels and the descriptors of a mixture that can be known of it.

    `overlap` and `ratio_db` need the true stems, `sources` a list of the other sources.
    """
    item, rate = recorded.item, recorded.sample_rate
    found: dict[str, Any] = {"id": item.id, "setting": item.setting}
    found["seconds"] = len(recorded.mixture) / rate
    found["loudness_lufs"] = audio.loudness_lufs(recorded.mixture, rate)
    found[LEVELS] = _levels(recorded.mixture)
    if item.spans:
        found["sounding"] = min(_length(item.spans) / item.seconds, 1.0)
    if item.residual_captions:
        found["sources"] = 1 + len(item.residual_captions)
    if isinstance(recorded, Rendered):
        target, residual = (activity(stem, rate) for stem in (recorded.target, recorded.residual))
        if sounding := _length(target):
            both = sum(
                max(0.0, min(end, other_end) - max(start, other_start))
                for start, end in target
                for other_start, other_end in residual
            )
            found["overlap"] = both / sounding
        powers = [
            float(np.square(stem.astype(np.float64)).sum())
            for stem in (recorded.target, recorded.residual)
        ]
        if all(powers):
            found["ratio_db"] = 10 * math.log10(powers[0] / powers[1])
    return found


def _levels(mixture: Wave) -> list[float]:
    """RMS in dBFS of equal parts of a mixture, at least `SILENT_DB`; none of one that is empty."""
    parts = np.array_split(mixture.astype(np.float64), PARTS)
    powers = [float(np.square(part).mean()) for part in parts if len(part)]
    return [round(max(SILENT_DB, 10 * math.log10(max(one, 1e-30))), 2) for one in powers]


def _length(ranges: tuple[TimeRange, ...]) -> float:
    return sum(end - start for start, end in merged(ranges))
