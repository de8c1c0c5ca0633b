"""Distances between a separated sound and the true stem.

Besides SI-SDR there is a log-mel distance, which is our choice: a generative model does not
reproduce the exact phase, to which SI-SDR is very sensitive.
"""

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.audio.mel import mel_filters

BANDS = 80
WINDOW_S = 0.04
HOP_S = 0.02
FLOOR_DB = -60.0  # relative to the loudest band of the true stem; weaker cells count as silence


def si_sdr_improvement(
    estimate: Float[np.ndarray, "*batch samples"],
    reference: Float[np.ndarray, "*batch samples"],
    mixture: Float[np.ndarray, "*batch samples"],
) -> Float[np.ndarray, "*batch"]:
    """SI-SDR of the estimate over that of the untouched mixture, in dB."""
    return np.asarray(audio.si_sdr(estimate, reference) - audio.si_sdr(mixture, reference))


def mel_power(
    wave: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, "frames bands"]:
    """Slaney mel power of 40 ms Hann windows every 20 ms."""
    hop = round(HOP_S * sample_rate)
    window = round(WINDOW_S / HOP_S) * hop
    spectrum = audio.stft(wave.astype(np.float32), window, hop)
    bands = min(BANDS, window // 4)
    return np.square(np.abs(spectrum)) @ mel_filters(sample_rate, window, bands)


def log_mel_distance(
    estimate: Float[np.ndarray, " samples"],
    reference: Float[np.ndarray, " samples"],
    sample_rate: int,
) -> float:
    """Mean absolute difference of the two log-mel spectrograms, in dB; 0 for equal sounds.

    Both spectrograms are floored 60 dB below the loudest cell of the reference, so that the noise
    of a silent stretch has no weight; for a silent reference the floor is -100 dB.
    """
    true = mel_power(reference, sample_rate)
    floor = max(float(true.max()) * 10 ** (FLOOR_DB / 10), 1e-10)
    separated = mel_power(estimate, sample_rate)
    difference = np.log10(np.maximum(separated, floor)) - np.log10(np.maximum(true, floor))
    return float(10 * np.mean(np.abs(difference)))
