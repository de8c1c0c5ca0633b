"""One program from padded prompts to waves: encode, condition, integrate, decode.

What does not depend on the flow time is computed once per solve, and what does not depend on the
noise once per item, however many candidates it has (docs/model.md, "Separation").
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.infer.collate import Prompts
from sam_audio_jax.separator import flow
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions, with_example


class Networks(nnx.Module):
    """The networks that every separation runs."""

    def __init__(self, codec: Codec, text_encoder: T5Encoder, separator: Separator):
        self.codec = codec
        self.text_encoder = text_encoder
        self.separator = separator


def solve_latents(
    networks: Networks, prompts: Prompts, sampler: flow.SamplerConfig
) -> Float[Array, "rows frames state"]:
    """Target and residual latents, side by side on channels, of every candidate."""
    separator = networks.separator
    mixture = prompts.mixture
    mixture = networks.codec.encode(prompts.wave) if mixture is None else mixture
    text, text_mask = networks.text_encoder(prompts.text_ids, prompts.text_mask), prompts.text_mask
    if prompts.like is not None and prompts.like_mask is not None:
        text, text_mask = with_example(text, text_mask, prompts.like, prompts.like_mask)
    conditions = Conditions.build(
        mixture=mixture,
        text=text,
        text_mask=text_mask,
        anchors=prompts.anchors,
        video=prompts.video,
        video_width=separator.config.video_width,
        valid=prompts.valid,
    )
    prepared = separator.prepare(conditions)
    if prompts.candidates > 1:
        prepared = jax.tree.map(lambda x: jnp.repeat(x, prompts.candidates, axis=0), prepared)

    def velocity(x: Array, time: Array) -> Array:
        return separator.velocity(x, time, prepared, step_size=sampler.step_size(time))

    return flow.sample(velocity, prompts.noise, sampler)


def decode_stems(
    codec: Codec,
    latents: Float[Array, "rows frames state"],
    message: Int[Array, "waves bits"] | None = None,
    *,
    targets_only: bool = False,
) -> Float[Array, "rows stems samples"]:
    """Target and residual waves, decoded in one batch in the order of the messages."""
    rows, frames, state = latents.shape
    stems = jnp.moveaxis(latents.reshape(rows, frames, 2, state // 2), 2, 1)
    stems = stems[:, :1] if targets_only else stems
    waves = codec.decode(stems.reshape(-1, frames, state // 2), watermark=message)
    return waves.reshape(rows, stems.shape[1], -1)


def separate_batch(
    networks: Networks,
    prompts: Prompts,
    *,
    sampler: flow.SamplerConfig,
    targets_only: bool = False,
) -> Float[Array, "batch candidates stems samples"]:
    """Waves of both stems of every candidate, or of the targets alone; see `decode_stems`."""
    latents = solve_latents(networks, prompts, sampler)
    waves = decode_stems(
        networks.codec,
        latents,
        prompts.message,
        targets_only=targets_only,
    )
    return waves.reshape(-1, prompts.candidates, *waves.shape[1:])


def encode_mixture(
    networks: Networks, wave: Float[Array, "batch samples"]
) -> Float[Array, "batch frames channels"]:
    """Latents of the mixture, where they are needed before the solve."""
    return networks.codec.encode(wave)
