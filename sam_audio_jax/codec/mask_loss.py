"""How well decoded stems divide a mixture: a loss for codecs whose stems become masks.

Where stems are refined on the recording (`infer/refine.py`), only the powers of the decoded stems
count, in bands and relative to each other. This is the same mask, differentiable, on mixtures of
the rows of a batch, and the error of what it leaves of each row.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.nn import spectral

WINDOW_S, OVERLAP, SMOOTH_S = 0.064, 4, 0.03  # those of the refinement
BANDS = 64
EXPONENT = 1.2
FLOOR = 1e-7  # of a band's power, relative to the mean of the mixture's


def mask_error_db(
    real: Float[Array, "batch samples"], fake: Float[Array, "batch samples"], sample_rate: int
) -> Float[Array, ""]:
    """The error of rows that a mask of decoded stems takes out of mixtures, in dB; lower is better.

    Every row of `real` is mixed with the next, the last with the first, and masked by the same rows
    of `fake`. The mean over rows of the error's energy relative to the row's, both in the STFT; 0
    for a mask that is 0, and about -15 for the rows themselves. Needs two rows or more.
    """
    window = OVERLAP * round(WINDOW_S * sample_rate / OVERLAP)
    filters, spread = _bands(sample_rate, window)

    def spectrum(wave: Array) -> Float[Array, "batch frames bins two"]:
        return jnp.stack(spectral.stft(wave, window, window // OVERLAP), axis=-1)

    def power(spectra: Array) -> Float[Array, "batch frames bands"]:
        energy = jnp.matmul(jnp.sum(jnp.square(spectra), axis=-1), filters, precision="highest")
        smoother = _smoother(energy.shape[1], window / OVERLAP / sample_rate)
        return jnp.einsum("fg,bgk->bfk", smoother, energy, precision="highest")

    own = spectrum(real)
    other = jnp.roll(own, -1, axis=0)
    level = jnp.mean(power(own + other), axis=(1, 2), keepdims=True)
    decoded = power(spectrum(fake))
    share = _ratio(decoded, jnp.roll(decoded, -1, axis=0), FLOOR * level + 1e-12)
    mask = jnp.matmul(share, spread, precision="highest")[..., None]
    error = _energy(mask * (own + other) - own)  # minus that of the other row
    decibels = [10 * jnp.log10(error / _energy(one)) for one in (own, other)]
    return jnp.mean(jnp.stack(decibels))


def _ratio(one: Array, other: Array, floor: Array) -> Array:
    """`one^e / (one^e + other^e)`, with a gradient that is finite where both are 0."""
    logarithms = [jnp.log(power + floor) for power in (one, other)]
    return jax.nn.sigmoid(EXPONENT * (logarithms[0] - logarithms[1]))


def _energy(spectra: Float[Array, "batch frames bins two"]) -> Float[Array, " batch"]:
    return jnp.sum(jnp.square(spectra), axis=(1, 2, 3)) + 1e-9


@functools.cache
def _bands(
    sample_rate: int, window: int
) -> tuple[Float[np.ndarray, "bins bands"], Float[np.ndarray, "bands bins"]]:
    """Filters that pool bins into bands, and their inverse, which spreads a share over its bins."""
    filters = mel_filters(sample_rate, window, BANDS)
    filters = filters / np.maximum(filters.max(axis=0), 1e-12)
    bins = np.arange(len(filters))
    centres = np.argmax(filters, axis=0)
    spread = np.stack([np.interp(bins, centres, row) for row in np.eye(BANDS)])
    return filters, spread.astype(np.float32)


@functools.cache
def _smoother(frames: int, hop_s: float) -> Float[np.ndarray, "frames frames"]:
    """A Gaussian over time as a matrix, whose rows sum to 1 at the edges, too."""
    distance = np.subtract.outer(np.arange(frames), np.arange(frames)) * hop_s / SMOOTH_S
    weights = np.exp(-0.5 * np.square(distance))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
