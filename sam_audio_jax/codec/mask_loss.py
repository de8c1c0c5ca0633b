"""How well decoded stems divide a mixture: the error of a mask, for what learns to make stems.

Where stems are refined on the recording (`infer/refine.py`), only the powers of the decoded stems
count, in bands and relative to each other. This is the same mask, differentiable, and the error of
what it leaves of each sound: of a codec's own stems here, of a separator's in
`separator/refined_loss.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax import audio, parallel
from sam_audio_jax.audio.signal import hann
from sam_audio_jax.nn import spectral

WINDOW_S, OVERLAP, BAND_ERB, SMOOTH_S = 0.064, 4, 0.5, 0.03  # those of the refinement
EXPONENT = 1.2
FLOOR = 1e-7  # of a band's power, relative to the mean of the mixture's

_Spectra = Float[Array, "batch frames bins two"]


def mask_error_db(
    real: Float[Array, "batch samples"], fake: Float[Array, "batch samples"], sample_rate: int
) -> Float[Array, ""]:
    """The error of rows that a mask of decoded stems takes out of mixtures, in dB; lower is better.

    Every row of `real` is mixed with the next, the last with the first, and masked by the same rows
    of `fake`. The mean over rows of the error's energy relative to the row's, both in the STFT; 0
    for a mask that is 0, and about -15 for the rows themselves. Needs two rows or more.
    """
    own, decoded = (mask_spectra(wave, sample_rate) for wave in (real, fake))
    other, residual = (jnp.roll(one, -1, axis=0) for one in (own, decoded))
    error = _energy(mask_error(own, other, decoded, residual, sample_rate, EXPONENT))
    decibels = [10 * jnp.log10(error / _energy(one)) for one in (own, other)]
    return jnp.mean(jnp.stack(decibels))


def mask_spectra(wave: Float[Array, "batch samples"], sample_rate: int) -> _Spectra:
    """The spectra that the refinement masks, real and imaginary part.

    `samples // hop + 1` frames, a quarter of a window apart. By a product where the batch is
    sharded, which an FFT would gather.
    """
    window, sharded = _window(sample_rate), parallel.axis_size("batch") > 1
    parts = spectral.stft(wave, window, window // OVERLAP, by_product=sharded or None)
    return jnp.stack(parts, axis=-1)


def power_gain(sample_rate: int) -> float:
    """The mean power of a bin of `mask_spectra` of white noise that has power 1."""
    return float(np.sum(np.square(hann(_window(sample_rate), np.float64))))


def mask_error(
    target: _Spectra,
    residual: _Spectra,
    decoded_target: _Spectra,
    decoded_residual: _Spectra,
    sample_rate: int,
    exponent: float,
) -> _Spectra:
    """What the mask of decoded stems lets through of their mixture, less the target.

    The error of the other stem is the negative of it.
    """
    window, mixture = _window(sample_rate), target + residual
    triangles, _ = audio.erb_bands(sample_rate, window, BAND_ERB)
    smoother = _smoother(mixture.shape[1], window / OVERLAP / sample_rate)

    def power(spectra: _Spectra) -> Float[Array, "batch frames bands"]:
        energy = jnp.matmul(jnp.sum(jnp.square(spectra), axis=-1), triangles, precision="highest")
        return jnp.einsum("fg,bgk->bfk", smoother, energy, precision="highest")

    level = jnp.mean(power(mixture), axis=(1, 2), keepdims=True)
    floor = FLOOR * level + 1e-12
    share = _ratio(power(decoded_target), power(decoded_residual), floor, exponent)
    mask = jnp.matmul(share, triangles.T, precision="highest")[..., None]
    return mask * mixture - target


def _ratio(one: Array, other: Array, floor: Array, exponent: float) -> Array:
    """`one^e / (one^e + other^e)`, with a gradient that is finite where both are 0."""
    logarithms = [jnp.log(power + floor) for power in (one, other)]
    return jax.nn.sigmoid(exponent * (logarithms[0] - logarithms[1]))


def _energy(spectra: _Spectra) -> Float[Array, " batch"]:
    return jnp.sum(jnp.square(spectra), axis=(1, 2, 3)) + 1e-9


def _window(sample_rate: int) -> int:
    """Samples of a window: whole hops of the refinement."""
    return OVERLAP * round(WINDOW_S * sample_rate / OVERLAP)


@functools.cache
def _smoother(frames: int, hop_s: float) -> Float[np.ndarray, "frames frames"]:
    """A Gaussian over time as a matrix, whose rows sum to 1 at the edges, too."""
    distance = np.subtract.outer(np.arange(frames), np.arange(frames)) * hop_s / SMOOTH_S
    weights = np.exp(-0.5 * np.square(distance))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
