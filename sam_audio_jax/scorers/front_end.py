"""What the frozen scorers hear: resampled waves as log-mel pictures.

See docs/scoring.md, "Resampling and log-mel".

Both transforms are products of overlapping blocks with one matrix, in full float32: they run on
the devices inside a jitted step, and a batch that is sharded stays so (a Fourier transform is
gathered by the compiler).
"""

import functools
import math

import jax.numpy as jnp
import librosa
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax.errors import UserError

LOWPASS_WIDTH = 6  # zero crossings of the resampler's sinc on each side
ROLLOFF = 0.99  # its cut-off, of the lower Nyquist frequency
BLOCK = 256  # samples, about, that one product resamples
FLOOR = 1e-10  # of mel power, before the logarithm


def blocks(
    x: Float[Array, "batch samples"], window: int, hop: int, count: int
) -> Float[Array, "batch count window"]:
    """`count` overlapping pieces `x[n * hop : n * hop + window]`; zeros beyond the end."""
    turns = -(-window // hop)
    missing = max((count + turns - 1) * hop - x.shape[1], 0)
    hops = jnp.pad(x, ((0, 0), (0, missing)))[:, : (count + turns - 1) * hop]
    hops = hops.reshape(x.shape[0], count + turns - 1, hop)
    pieces = [hops[:, i : i + count, : window - i * hop] for i in range(turns)]
    return jnp.concatenate(pieces, axis=-1)


def resample(
    wave: Float[Array, "batch samples"], from_rate: int, to_rate: int
) -> Float[Array, "batch resampled"]:
    """Windowed sinc with torchaudio's defaults; `ceil(samples * to_rate / from_rate)` come out."""
    if from_rate == to_rate:
        return wave
    shared = math.gcd(from_rate, to_rate)
    stride, phases = from_rate // shared, to_rate // shared
    pad = _half_width(stride, phases)
    matrix = _sinc_matrix(stride, phases, -(-BLOCK // stride))
    turns = matrix.shape[1] // phases
    length = -(-wave.shape[1] * phases // stride)
    count = -(-length // matrix.shape[1])
    padded = jnp.pad(wave, ((0, 0), (pad, 0)))
    pieces = blocks(padded, matrix.shape[0], turns * stride, count)
    out = jnp.matmul(pieces, matrix, precision="highest")
    return out.reshape(wave.shape[0], -1)[:, :length]


def _half_width(stride: int, phases: int) -> int:
    return math.ceil(LOWPASS_WIDTH * stride / (ROLLOFF * min(stride, phases)))


@functools.cache
def _sinc_matrix(stride: int, phases: int, turns: int) -> Float[np.ndarray, "window resampled"]:
    """`turns` strides of input, with what they need on both sides, to as many times `phases`."""
    base = ROLLOFF * min(stride, phases)
    width = _half_width(stride, phases)
    tap = np.arange(-width, width + stride)[:, None]
    time = (tap / stride - np.arange(phases) / phases) * base
    time = np.clip(time, -LOWPASS_WIDTH, LOWPASS_WIDTH)
    taps = np.cos(np.pi * time / (2 * LOWPASS_WIDTH)) ** 2 * np.sinc(time) * base / stride
    matrix = np.zeros(((turns - 1) * stride + len(tap), turns, phases), np.float32)
    for turn in range(turns):
        matrix[turn * stride : turn * stride + len(tap), turn] = taps
    return matrix.reshape(len(matrix), -1)


def log_mel(
    wave: Float[Array, "batch samples"], window: int, hop: int, filters: Float[np.ndarray, "f m"]
) -> Float[Array, "batch frames mels"]:
    """Mel power in dB of `samples // hop + 1` frames, centred, reflected at both ends.

    UserError for a wave of half a window or less.
    """
    if wave.shape[1] <= window // 2:
        raise UserError(f"{wave.shape[1]} samples are too few for an STFT window of {window}")
    count = wave.shape[1] // hop + 1
    padded = jnp.pad(wave, ((0, 0), (window // 2, window // 2)), mode="reflect")
    pieces = blocks(padded, window, hop, count)
    real, imaginary = jnp.split(jnp.matmul(pieces, dft(window), precision="highest"), 2, axis=-1)
    power = jnp.square(real) + jnp.square(imaginary)
    return 10 * jnp.log10(jnp.maximum(jnp.matmul(power, filters, precision="highest"), FLOOR))


@functools.cache
def dft(window: int) -> Float[np.ndarray, "window bins"]:
    """Periodic Hann window and Fourier transform; real parts, then imaginary ones."""
    place = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * place / window)
    angle = 2 * np.pi * (np.outer(place, np.arange(window // 2 + 1)) % window) / window
    both = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)
    return (both * hann[:, None]).astype(np.float32)


@functools.cache
def mel_filters(
    sample_rate: int, window: int, mels: int, low_hz: float, high_hz: float
) -> Float[np.ndarray, "bins mels"]:
    """Slaney scale and area, computed in float64, as float32."""
    made = librosa.filters.mel(
        sr=sample_rate, n_fft=window, n_mels=mels, fmin=low_hz, fmax=high_hz, dtype=np.float64
    )
    return np.ascontiguousarray(made.T.astype(np.float32))
