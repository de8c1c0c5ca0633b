"""Functions of signals in memory: short-time spectra, loudness, phase, SI-SDR."""

import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Float32

LOUDNESS_FLOOR_LUFS = -70.0  # BS.1770's absolute gate: what "silent" measures as


def all_finite(samples: np.ndarray) -> bool:
    """Returns whether no sample is NaN or infinite; allocates no array as long as the sound."""
    return bool(np.isfinite([samples.min(), samples.max()]).all())


@functools.cache
def hann(window: int, dtype: type[np.floating] = np.float32) -> Float[np.ndarray, " window"]:
    """Returns the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(dtype)


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
    return np.fft.rfft(pieces[..., : frames * hop : hop, :] * hann(window), axis=-1)


def istft(
    spectrum: Complex[np.ndarray, "... frames bins"], window: int, hop: int, samples: int
) -> Float[np.ndarray, "... samples"]:
    """Inverts `stft` (by least squares for a changed spectrum); the result has `samples`."""
    frames, parts = spectrum.shape[-2], window // hop
    pieces = np.fft.irfft(spectrum, window, axis=-1) * hann(window)
    pieces = pieces.reshape(*spectrum.shape[:-1], parts, hop)
    squares = np.square(hann(window)).reshape(parts, hop)
    out = np.zeros((*spectrum.shape[:-2], frames + parts - 1, hop), pieces.dtype)
    weight = np.zeros((frames + parts - 1, hop), pieces.dtype)
    for part in range(parts):
        out[..., part : part + frames, :] += pieces[..., part, :]
        weight[part : part + frames] += squares[part]
    out /= np.maximum(weight, 1e-8)
    flat = out.reshape(*spectrum.shape[:-2], -1)
    return flat[..., window // 2 : window // 2 + samples]


@functools.cache
def _meter(sample_rate: int) -> Any:
    """Returns the `pyloudnorm.Meter` of a rate; its filters are designed once."""
    import pyloudnorm  # not above: it imports scipy.signal, 50 MB that a separation does not need

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


def si_sdr(
    estimate: Float[Any, "*batch samples"],
    reference: Float[Any, "*batch samples"],
    *,
    zero_mean: bool = False,
) -> Float[Any, "*batch"]:
    """Scale-invariant signal-to-distortion ratio over the last axis in dB, of NumPy or JAX arrays.

    The definition is that of torchmetrics' `scale_invariant_signal_distortion_ratio`. It is
    computed in the dtype of the arrays, whose machine epsilon keeps silence finite; float64 arrays
    give exact numbers.
    """
    np_or_jnp = estimate.__array_namespace__()
    if zero_mean:
        estimate = estimate - estimate.mean(axis=-1, keepdims=True)
        reference = reference - reference.mean(axis=-1, keepdims=True)
    eps = np_or_jnp.finfo(estimate.dtype).eps
    power = (reference * reference).sum(axis=-1, keepdims=True) + eps
    signal = ((estimate * reference).sum(axis=-1, keepdims=True) + eps) / power * reference
    noise = estimate - signal
    ratio = ((signal * signal).sum(axis=-1) + eps) / ((noise * noise).sum(axis=-1) + eps)
    return np_or_jnp.asarray(10 * np_or_jnp.log10(ratio))
