"""What the scores of labels that need no network measure: agreements and levels of waves."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax import audio
from sam_audio_jax.scorers.activity import ActivityConfig, find_activity

LIMIT_DB = 50.0  # of an agreement: two equal waves, and a silent one
FLOOR_DB = -80.0  # of a level: silence
SILENT_RMS = 1e-5  # -100 dBFS: below it a wave is silent
# Published: silence is below -40 dBFS.
SILENCE = ActivityConfig(mode="abs", threshold_db=-40.0)

_Wave = Float[np.ndarray, " _"]


def is_silent(wave: _Wave) -> bool:
    """Whether nothing at all is in a wave."""
    return _rms(wave) < SILENT_RMS


def agreement_db(wave: _Wave, reference: _Wave) -> float:
    """The SI-SDR of one wave against another, within -50 to 50 dB.

    It is -50 where either is silent: silence agrees with nothing, not even with silence.
    """
    if is_silent(wave) or is_silent(reference):
        return -LIMIT_DB
    value = float(audio.si_sdr(wave.astype(np.float64), reference.astype(np.float64)))
    return float(np.clip(value, -LIMIT_DB, LIMIT_DB))


def level_db(wave: _Wave, reference: _Wave) -> float:
    """The RMS level of a wave in dB of that of another, from -80 dB on; 50 dB above silence."""
    if is_silent(wave):
        return FLOOR_DB
    if is_silent(reference):
        return LIMIT_DB
    ratio = 20 * math.log10(_rms(wave) / _rms(reference))
    return float(np.clip(ratio, FLOOR_DB, LIMIT_DB))


def silent_share(wave: _Wave, sample_rate: int) -> float:
    """The share of a wave that is silent, at the published threshold of -40 dBFS."""
    return find_activity(wave, sample_rate, SILENCE).silence_ratio


def mask_coverage(masks: Iterator[Bool[np.ndarray, "_ _"]]) -> float:
    """The mean share of the picture that a mask covers, over its frames; 0 without frames."""
    shares = [float(mask.mean()) for mask in masks]
    return float(np.mean(shares)) if shares else 0.0


def fitted(wave: _Wave, samples: int) -> _Wave:
    """A wave repeated or cut to a length."""
    return np.resize(wave, samples)


def _rms(wave: _Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if wave.size else 0.0
