"""Fewer, better conditioned latents: a codec's bottleneck rotated to its principal components.

A codec that was trained for a short time leaves most of its latent channels redundant, and a
separator then spends capacity on the noise of channels without information. The bottleneck's
projections are linear, so the rotation is exact up to the components that are dropped (ours, not
the paper's).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.conv import WeightNormConv1d
from sam_audio_jax.nn.rngs import Rngs


def principal(
    codec: Codec, means: Float[np.ndarray, "frames channels"], channels: int, power: float = 0.5
) -> Codec:
    """A codec whose latents are the first `channels` principal components of this one's.

    `means` are posterior means of `Codec.moments`. A component of standard deviation s gets
    s ** (1 - power): power 0 only rotates, 1 whitens. Raises `UserError` for more channels than
    there are, and for too few frames to estimate their covariance.
    """
    config = codec.config
    if not 1 <= channels <= config.codebook_dim or len(means) <= config.codebook_dim:
        raise UserError(
            f"channels={channels} must be 1 to {config.codebook_dim}, measured on more than "
            f"{config.codebook_dim} frames, not {len(means)}"
        )
    centre = means.mean(0, dtype=np.float64)
    variances, rotation = np.linalg.eigh(np.cov(means, rowvar=False, dtype=np.float64))
    rotation = rotation[:, ::-1][:, :channels]
    gain = np.maximum(variances[::-1][:channels], 1e-12) ** (-power / 2)

    into, bias = _affine(codec.in_proj)
    mean, scale = np.split(into, 2, axis=1)
    mean_bias, scale_bias = np.split(bias, 2)
    # The posterior's spread: pre-activations are averaged like variances; below 1 softplus is
    # nearly the exponential, so that a gain is a sum.
    weights = np.square(rotation)
    into = np.concatenate([mean @ rotation * gain, scale @ weights], axis=1)
    bias = np.concatenate(
        [(mean_bias - centre) @ rotation * gain, scale_bias @ weights + np.log(gain)]
    )
    out, out_bias = _affine(codec.out_proj)

    new = dataclasses.replace(config, codebook_dim=channels, mean=0.0, std=1.0)
    rotated = Codec(new, rngs=Rngs(0))
    rotated.encoder, rotated.decoder = codec.encoder, codec.decoder
    rotated.watermark = codec.watermark
    _set(rotated.in_proj, into, bias)
    _set(rotated.out_proj, (rotation / gain).T @ out, out_bias + centre @ out)
    return rotated


def _affine(layer: WeightNormConv1d) -> tuple[np.ndarray, np.ndarray]:
    """Matrix `[in, out]` and bias of a convolution of window 1."""
    return np.asarray(layer.kernel()[0], np.float64), np.asarray(layer.bias[...], np.float64)


def _set(layer: WeightNormConv1d, matrix: np.ndarray, bias: np.ndarray) -> None:
    layer.direction[...] = jnp.asarray(matrix[None], jnp.float32)
    layer.scale[...] = jnp.asarray(np.linalg.norm(matrix, axis=0), jnp.float32)
    layer.bias[...] = jnp.asarray(bias, jnp.float32)
