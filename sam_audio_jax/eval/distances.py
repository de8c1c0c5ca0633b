"""Distances between a separated sound and the true stem.

SI-SDR has the definition and the epsilon of torchmetrics'
`scale_invariant_signal_distortion_ratio`. The log-mel distance is our choice: a generative model
does not reproduce the exact phase, and SI-SDR punishes that hard.
"""

import functools

import librosa
import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio

BANDS = 80
WINDOW_S = 0.04
HOP_S = 0.02
FLOOR_DB = -60.0  # relative to the loudest band of the true stem; weaker cells count as silence


def si_sdr(
    estimate: Float[np.ndarray, "*batch samples"],
    reference: Float[np.ndarray, "*batch samples"],
    *,
    zero_mean: bool = False,
) -> Float[np.ndarray, "*batch"]:
    """Scale-invariant signal-to-distortion ratio over the last axis, in dB.

    It is computed in the dtype of the inputs, whose machine epsilon keeps silence finite; give
    float64 for exact numbers.
    """
    if zero_mean:
        estimate = estimate - estimate.mean(axis=-1, keepdims=True)
        reference = reference - reference.mean(axis=-1, keepdims=True)
    eps = np.finfo(estimate.dtype).eps
    power = np.sum(reference * reference, axis=-1, keepdims=True) + eps
    scale = (np.sum(estimate * reference, axis=-1, keepdims=True) + eps) / power
    signal = scale * reference
    noise = estimate - signal
    ratio = (np.sum(signal * signal, axis=-1) + eps) / (np.sum(noise * noise, axis=-1) + eps)
    return np.asarray(10 * np.log10(ratio))


def si_sdr_improvement(
    estimate: Float[np.ndarray, "*batch samples"],
    reference: Float[np.ndarray, "*batch samples"],
    mixture: Float[np.ndarray, "*batch samples"],
) -> Float[np.ndarray, "*batch"]:
    """SI-SDR of the estimate over that of the untouched mixture, in dB."""
    return np.asarray(si_sdr(estimate, reference) - si_sdr(mixture, reference))


@functools.lru_cache(maxsize=4)
def _mel_bank(sample_rate: int, window: int) -> np.ndarray:
    """Returns the Slaney filters [bands, window // 2 + 1]."""
    # A narrow band between two bins stays empty; it is the same for both sounds.
    bands = min(BANDS, window // 4)
    return librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands)


def mel_power(
    wave: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, "frames bands"]:
    """Slaney mel power of 40 ms Hann windows every 20 ms."""
    hop = round(HOP_S * sample_rate)
    window = round(WINDOW_S / HOP_S) * hop
    spectrum = audio.stft(wave.astype(np.float32), window, hop)
    return np.square(np.abs(spectrum)) @ _mel_bank(sample_rate, window).T


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
