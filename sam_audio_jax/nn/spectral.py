"""Short-time spectra on the devices; `audio/signal.py` has those on the host."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax.audio.signal import hann
from sam_audio_jax.errors import UserError

PRODUCT_WINDOW = 64  # up to here a product with the DFT matrix is faster than an FFT


def stft(
    wave: Float[Array, "batch samples"], window: int, hop: int, *, by_product: bool | None = None
) -> tuple[Float[Array, "batch frames bins"], Float[Array, "batch frames bins"]]:
    """Centred, unnormalised STFT: periodic Hann window, the wave reflected at both ends.

    `by_product` multiplies by the DFT matrix in full float32 instead of an FFT, by default for
    short windows. A sharded batch then stays sharded; for an FFT the compiler would gather it.

    Returns:
      Real and imaginary part; `samples // hop + 1` frames of `window // 2 + 1` bins.

    Raises:
      UserError: the wave is too short to be reflected by half a window.
    """
    samples = wave.shape[1]
    if samples <= window // 2:
        raise UserError(f"a wave of {samples} samples is too short for an STFT window of {window}")
    padded = jnp.pad(wave, ((0, 0), (window // 2, window // 2)), mode="reflect")
    frames = blocks(padded, window, hop, samples // hop + 1)
    if window <= PRODUCT_WINDOW if by_product is None else by_product:
        both = jnp.matmul(frames, dft(window), precision="highest")
        real, imaginary = jnp.split(both, 2, axis=-1)
        return real, imaginary
    spectrum = jnp.fft.rfft(frames * hann(window))
    return spectrum.real, spectrum.imag


def blocks(
    x: Float[Array, "batch samples"], window: int, hop: int, count: int
) -> Float[Array, "batch count window"]:
    """Returns `count` overlapping blocks `x[n * hop : n * hop + window]`; pads with zeros."""
    hops_per_block = -(-window // hop)
    hops = count + hops_per_block - 1
    padding = max(hops * hop - x.shape[1], 0)
    padded = jnp.pad(x, ((0, 0), (0, padding)))[:, : hops * hop]
    by_hop = padded.reshape(x.shape[0], hops, hop)
    parts = [by_hop[:, i : i + count, : window - i * hop] for i in range(hops_per_block)]
    return jnp.concatenate(parts, axis=-1)


@functools.cache
def dft(window: int) -> Float[np.ndarray, "window bins"]:
    """A periodic Hann window and the Fourier transform as one matrix.

    The first half of the columns gives the real parts, the second half the imaginary parts.
    """
    sample = np.arange(window)
    angle = 2 * np.pi * (np.outer(sample, np.arange(window // 2 + 1)) % window) / window
    both = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)
    return (both * hann(window, np.float64)[:, None]).astype(np.float32)
