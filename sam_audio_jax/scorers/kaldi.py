"""Kaldi's log-mel filter bank, the input of ImageBind's audio tower.

Arithmetic: docs/scoring.md, "ImageBind"; that of `torchaudio.compliance.kaldi.fbank` without
dither. It differs from `front_end.log_mel` in all of its parts: frames that are not centred,
pre-emphasis, a symmetric window, triangles in mel, and a natural logarithm.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from sam_audio_jax.nn.spectral import blocks

PRE_EMPHASIS = 0.97
FLOOR = 1.1920929e-07  # of the energies before the logarithm: float32's epsilon


def frame_count(samples: int, window: int, hop: int) -> int:
    """Whole windows in so many samples."""
    return max((samples - window) // hop + 1, 0)


def log_mel(
    wave: Float[Array, "batch samples"],
    window: int,
    hop: int,
    filters: Float32[np.ndarray, "bins bands"],
) -> Float[Array, "batch frames bands"]:
    """The logarithm of the mel energies of all whole windows.

    From each window its mean is subtracted, then its pre-emphasised samples are transformed, with
    zeros up to twice as many samples as there are bins.
    """
    frames = blocks(wave, window, hop, frame_count(wave.shape[1], window, hop))
    frames = frames - jnp.mean(frames, axis=-1, keepdims=True)
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    emphasised = frames - PRE_EMPHASIS * before
    spectrum = jnp.matmul(emphasised, _dft(window, 2 * len(filters)), precision="highest")
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    energies = jnp.matmul(jnp.square(real) + jnp.square(imaginary), filters, precision="highest")
    return jnp.log(jnp.maximum(energies, FLOOR))


@functools.cache
def _dft(window: int, size: int) -> Float32[np.ndarray, "window parts"]:
    """A symmetric Hann window and the Fourier transform of `size` samples as one matrix.

    Its columns are the real parts of all bins below the Nyquist frequency, then the imaginary ones.
    """
    sample = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * sample / (window - 1))
    angle = 2 * np.pi * (np.outer(sample, np.arange(size // 2)) % size) / size
    both = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)
    return (both * hann[:, None]).astype(np.float32)


def _mel(hz: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 1127 * np.log1p(hz / 700)


@functools.cache
def mel_triangles(
    sample_rate: int, size: int, bands: int, low_hz: float, high_hz: float
) -> Float32[np.ndarray, "bins bands"]:
    """Filters that are triangles of height 1 over the mel axis, not over the frequency axis.

    `size` is that of the Fourier transform, whose bin at the Nyquist frequency is not used.
    """
    low, high = _mel(np.array([low_hz, high_hz]))
    left = low + (high - low) / (bands + 1) * np.arange(bands)
    step = (high - low) / (bands + 1)
    bin_mel = _mel(np.arange(size // 2) * sample_rate / size)[:, None]
    rising, falling = (bin_mel - left) / step, (left + 2 * step - bin_mel) / step
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
