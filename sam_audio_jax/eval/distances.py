"""Distances between a separated sound and the true stem.

Besides SI-SDR there is a log-mel distance, which is our choice: a generative model does not
reproduce the exact phase, to which SI-SDR is very sensitive.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.audio.mel import mel_filters

BANDS = 80
WINDOW_S = 0.04
HOP_S = 0.02
FLOOR_DB = -60.0  # relative to the loudest band of the true stem; weaker cells count as silence
TRACK_EPS = 1e-7  # added to both energies of `track_sdr`
STFT_WINDOWS = (512, 1024, 2048)  # samples


def si_sdr_improvement(
    estimate: Float[np.ndarray, "*batch samples"],
    reference: Float[np.ndarray, "*batch samples"],
    mixture: Float[np.ndarray, "*batch samples"],
) -> Float[np.ndarray, "*batch"]:
    """SI-SDR of the estimate over that of the untouched mixture, in dB."""
    return np.asarray(audio.si_sdr(estimate, reference) - audio.si_sdr(mixture, reference))


def snr(
    estimate: Float[np.ndarray, "*batch samples"], reference: Float[np.ndarray, "*batch samples"]
) -> Float[np.ndarray, "*batch"]:
    """Signal-to-noise ratio in dB, the noise being `reference - estimate`.

    As in torchmetrics the machine epsilon of the arrays' dtype keeps silence finite.
    """
    eps = np.finfo(reference.dtype).eps
    signal = _energy(reference, (-1,)) + eps
    return np.asarray(10 * np.log10(signal / (_energy(reference - estimate, (-1,)) + eps)))


def track_sdr(
    estimate: Float[np.ndarray, "*batch samples channels"],
    reference: Float[np.ndarray, "*batch samples channels"],
) -> Float[np.ndarray, "*batch"]:
    """Signal-to-distortion ratio of a whole track in dB, over all of its samples and channels.

    This is the score of the Music Demixing Challenge (arXiv 2108.13559); its mean is over tracks.
    """
    signal = _energy(reference, (-2, -1)) + TRACK_EPS
    noise = _energy(reference - estimate, (-2, -1)) + TRACK_EPS
    return np.asarray(10 * np.log10(signal / noise))


def _energy(wave: Float[np.ndarray, "..."], axes: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.square(wave, dtype=np.float64).sum(axis=axes))


def stft_distance(
    estimate: Float[np.ndarray, " samples"],
    reference: Float[np.ndarray, " samples"],
    windows: Sequence[int] = STFT_WINDOWS,
) -> float:
    """Multi-resolution STFT distance, the mean over windows of so many samples; 0 for equal sounds.

    For each of them the spectral convergence, `|R - E| / |R|` of the magnitudes' Frobenius norms,
    and the mean absolute difference of their natural logarithms are added (arXiv 1910.11480). As in
    `log_mel_distance`, magnitudes are floored 60 dB below the largest of the reference.
    """
    distances = []
    for window in windows:
        true, separated = (
            np.abs(audio.stft(wave.astype(np.float64), window, window // 4))
            for wave in (reference, estimate)
        )
        floor = max(float(true.max()) * 10 ** (FLOOR_DB / 20), 1e-5)
        convergence = np.linalg.norm(true - separated) / max(float(np.linalg.norm(true)), floor)
        logs = np.log(np.maximum(true, floor)) - np.log(np.maximum(separated, floor))
        distances.append(convergence + np.abs(logs).mean())
    return float(np.mean(distances))


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
