"""Resampling and log-mel spectrograms, the input of the frozen scorers.

Formulas: docs/scoring.md, "Resampling and log-mel".

Both transforms are products of overlapping blocks of samples with one matrix, in full float32.
They run on the devices inside a jitted step, and a sharded batch stays sharded (for an FFT the
compiler would gather it).
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax.nn.spectral import blocks, stft

LOWPASS_WIDTH = 6  # zero crossings of the resampler's sinc on each side
ROLLOFF = 0.99  # cut-off of the resampler over the lower of the two Nyquist frequencies
BLOCK = 256  # input samples of one matrix product, rounded up to whole strides
FLOOR = 1e-10  # lower limit of the mel power before the logarithm


def resample(
    wave: Float[Array, "batch samples"], from_rate: int, to_rate: int
) -> Float[Array, "batch resampled"]:
    """Resamples by a windowed sinc with torchaudio's defaults.

    The result has `ceil(samples * to_rate / from_rate)` samples.
    """
    if from_rate == to_rate:
        return wave
    divisor = math.gcd(from_rate, to_rate)
    stride, phases = from_rate // divisor, to_rate // divisor
    strides = -(-BLOCK // stride)  # of one block
    matrix = _sinc_matrix(stride, phases, strides)
    length = -(-wave.shape[1] * phases // stride)
    count = -(-length // matrix.shape[1])
    padded = jnp.pad(wave, ((0, 0), (half_width(stride, phases), 0)))
    inputs = blocks(padded, matrix.shape[0], strides * stride, count)
    out = jnp.matmul(inputs, matrix, precision="highest")
    return out.reshape(wave.shape[0], -1)[:, :length]


def half_width(stride: int, phases: int) -> int:
    """Samples of the filter on each side."""
    return math.ceil(LOWPASS_WIDTH * stride / (ROLLOFF * min(stride, phases)))


@functools.cache
def _sinc_matrix(stride: int, phases: int, strides: int) -> Float[np.ndarray, "window resampled"]:
    """The matrix that resamples one block.

    Its input is `strides` strides and the filter's width on both sides, its output `phases` samples
    for each of the strides.
    """
    base = ROLLOFF * min(stride, phases)
    width = half_width(stride, phases)
    tap = np.arange(-width, width + stride)[:, None]
    time = (tap / stride - np.arange(phases) / phases) * base
    time = np.clip(time, -LOWPASS_WIDTH, LOWPASS_WIDTH)
    taps = np.cos(np.pi * time / (2 * LOWPASS_WIDTH)) ** 2 * np.sinc(time) * base / stride
    matrix = np.zeros(((strides - 1) * stride + len(tap), strides, phases), np.float32)
    for i in range(strides):
        matrix[i * stride : i * stride + len(tap), i] = taps
    return matrix.reshape(len(matrix), -1)


def log_mel(
    wave: Float[Array, "batch samples"], window: int, hop: int, filters: Float[np.ndarray, "f m"]
) -> Float[Array, "batch frames mels"]:
    """Mel power in dB of `samples // hop + 1` frames.

    Windows are centred on their frames, and the wave is reflected at both ends. Raises UserError
    for a wave of at most half a window.
    """
    real, imaginary = stft(wave, window, hop, by_product=True)
    power = jnp.square(real) + jnp.square(imaginary)
    return 10 * jnp.log10(jnp.maximum(jnp.matmul(power, filters, precision="highest"), FLOOR))
