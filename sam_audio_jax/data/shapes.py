"""Shapes of a batch before there is one: for ahead-of-time compilation (see `data/examples.py`)."""

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.pipeline import frame_count
from sam_audio_jax.data.shards import SIGNALS
from sam_audio_jax.separator.prompts import FIRST_SLOT


def batch_shapes(
    config: DataConfig, codec: CodecConfig, rows: int, place: Sharding | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `separation_batches` gives, in `rows` rows: latents with a cache, else waves."""
    frames = frame_count(config, codec.sample_rate, codec.hop)
    slots, tokens = FIRST_SLOT + config.max_spans, config.text_tokens
    signal = (frames, codec.codebook_dim) if config.cache else (frames * codec.hop,)
    shapes = dict.fromkeys(SIGNALS, (signal, jnp.float32)) | {
        "valid": ((frames,), jnp.bool_),
        "text_ids": ((tokens,), jnp.int32),
        "text_mask": ((tokens,), jnp.bool_),
        "anchor_ids": ((slots,), jnp.int32),
        "anchor_alignment": ((frames,), jnp.int32),
    }
    return {
        name: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=place)
        for name, (shape, dtype) in shapes.items()
    }
