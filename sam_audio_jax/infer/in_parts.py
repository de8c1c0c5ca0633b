"""Separation in little memory: the codec is a program of its own, run on stretches of each wave.

For models that are kept in less than float32, on a CPU (docs/inference.md).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sam_audio_jax.infer.collate import Prompts
from sam_audio_jax.infer.long_audio import LongAudio
from sam_audio_jax.infer.solve import solve_latents
from sam_audio_jax.separator.flow import SamplerConfig


def encode_in_parts(
    long_audio: LongAudio, waves: Float[Array, "batch samples"]
) -> Float[Array, "batch frames channels"]:
    """The latents of mixtures, one after the other."""
    return jnp.asarray(np.stack([long_audio.encode(wave) for wave in np.asarray(waves)]))


def separate_in_parts(
    long_audio: LongAudio,
    prompts: Prompts,
    *,
    sampler: SamplerConfig,
    targets_only: bool = False,
) -> Float[np.ndarray, "batch candidates stems samples"]:
    """What `separate_batch` gives, without a watermark."""
    if prompts.mixture is None:
        mixture = encode_in_parts(long_audio, prompts.wave)
        prompts = dataclasses.replace(prompts, mixture=mixture)
    latents = np.asarray(long_audio.compiled(solve_latents, prompts, sampler=sampler))
    rows, frames, state = latents.shape
    latents = np.moveaxis(latents.reshape(rows, frames, 2, state // 2), 2, 1)
    latents = latents[:, :1] if targets_only else latents
    waves = np.empty((*latents.shape[:2], prompts.wave.shape[1]), np.float32)
    for stems, out in zip(latents, waves, strict=True):
        long_audio.decode(stems, out)
    return waves.reshape(-1, prompts.candidates, *waves.shape[1:])
