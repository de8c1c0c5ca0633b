"""Functions of signals in memory: mono, short-time spectra, loudness, phase."""

import functools
import math

import numpy as np
import pyloudnorm
from jaxtyping import Complex, Float, Float32

LOUDNESS_FLOOR_LUFS = -70.0  # BS.1770's absolute gate: what "silent" measures as


def all_finite(samples: np.ndarray) -> bool:
    """Returns whether no sample is NaN or infinite; allocates no array as long as the sound."""
    return bool(np.isfinite([samples.min(), samples.max()]).all())


def mono(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " samples"]:
    """Returns the mean of the channels; a single channel is returned as it is, not copied."""
    return samples[0] if len(samples) == 1 else samples.mean(0)


@functools.cache
def _hann(window: int) -> Float32[np.ndarray, " window"]:
    """Returns the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def stft(
    samples: Float[np.ndarray, "... samples"], window: int, hop: int
) -> Complex[np.ndarray, "... frames bins"]:
    """Returns the centred periodic-Hann STFT with zeros around the signal.

    `window` is a multiple of `hop`. `ceil(samples / hop) + 1` frames cover every sample often
    enough for an exact inverse.
    """
    if window % hop:
        raise ValueError(f"window {window} must be a multiple of hop {hop}")
    length = samples.shape[-1]
    frames = math.ceil(length / hop) + 1
    pad = [(0, 0)] * (samples.ndim - 1) + [(window // 2, frames * hop + window // 2 - length)]
    padded = np.pad(samples, pad)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)
    return np.fft.rfft(pieces[..., : frames * hop : hop, :] * _hann(window), axis=-1)


def istft(
    spectrum: Complex[np.ndarray, "... frames bins"], window: int, hop: int, samples: int
) -> Float[np.ndarray, "... samples"]:
    """Inverts `stft` (by least squares for a changed spectrum); the result has `samples`."""
    frames, parts = spectrum.shape[-2], window // hop
    pieces = np.fft.irfft(spectrum, window, axis=-1) * _hann(window)
    pieces = pieces.reshape(*spectrum.shape[:-1], parts, hop)
    squares = np.square(_hann(window)).reshape(parts, hop)
    out = np.zeros((*spectrum.shape[:-2], frames + parts - 1, hop), pieces.dtype)
    weight = np.zeros((frames + parts - 1, hop), pieces.dtype)
    for part in range(parts):
        out[..., part : part + frames, :] += pieces[..., part, :]
        weight[part : part + frames] += squares[part]
    out /= np.maximum(weight, 1e-8)
    flat = out.reshape(*spectrum.shape[:-2], -1)
    return flat[..., window // 2 : window // 2 + samples]


@functools.cache
def _meter(sample_rate: int) -> pyloudnorm.Meter:
    """Returns the meter of a rate; its filters are designed once."""
    return pyloudnorm.Meter(sample_rate)


def loudness_lufs(wave: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Returns the integrated loudness (BS.1770: 0.4 s blocks, 75 % overlap), at least -70 LUFS."""
    short = sample_rate // 2 - len(wave)
    if short > 0:
        wave = np.pad(wave, (0, short))
    with np.errstate(divide="ignore"):
        value = float(_meter(sample_rate).integrated_loudness(wave))
    return max(value, LOUDNESS_FLOOR_LUFS) if math.isfinite(value) else LOUDNESS_FLOOR_LUFS


def rotate_phase(
    wave: Float[np.ndarray, " samples"], angle: float, sample_rate: int
) -> Float32[np.ndarray, " samples"]:
    """Adds one angle (radians) to the phase of every STFT bin: another wave, the same sound."""
    window = 2 ** math.ceil(math.log2(0.032 * sample_rate))  # 2048 at 44.1 and 48 kHz
    spectrum = stft(wave, window, window // 4) * np.exp(1j * np.float32(angle))
    return istft(spectrum, window, window // 4, len(wave)).astype(np.float32)
