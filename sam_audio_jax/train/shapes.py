"""Shapes of a batch before there is one: for ahead-of-time compilation (see `data/examples.py`)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from sam_audio_jax.data.examples import segments_around
from sam_audio_jax.data.pipeline import example_frames
from sam_audio_jax.data.records import SIGNALS
from sam_audio_jax.train.config import TrainConfig


def batch_shapes(
    config: TrainConfig, rows: int, sharding: Sharding | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch of `separation_batches`: latents with a cache, else waves.

    With alignment a cache is assumed to hold the teacher's features, and with a vision tower those
    of videos.
    """
    data, codec = config.data, config.codec
    frames = example_frames(data, codec.sample_rate, codec.hop)
    tokens = data.prompts.text_tokens
    signal: tuple[tuple[int, ...], Any] = ((frames * codec.hop,), jnp.float32)
    if data.encoded:
        signal = ((frames, codec.codebook_dim), jnp.float16)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = dict.fromkeys(SIGNALS, signal)
    shapes |= {
        "valid": ((frames,), jnp.bool_),
        "text_ids": ((tokens,), jnp.int32),
        "text_mask": ((tokens,), jnp.bool_),
        "anchors": ((frames,), jnp.int32),
    }
    if config.alignment.weight and data.caches:
        teacher = config.alignment.teacher
        count = segments_around(frames, teacher.segment_s * codec.sample_rate / codec.hop)
        shapes["teacher_features"] = ((count, teacher.width), jnp.float16)
        shapes["teacher_features_offset"] = ((), jnp.float32)
    if data.waves and data.caches:
        shapes["waves"] = ((2, frames * codec.hop), jnp.float16)
    if config.vision_checkpoint and data.encoded:
        shapes["video"] = ((frames, config.separator.video_width), jnp.float16)
    return {
        name: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }
