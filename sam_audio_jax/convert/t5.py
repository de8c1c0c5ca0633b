"""The T5 text encoder: its `config.json` and the names of its tensors, those of transformers.

The network: docs/prompt_encoders.md, "T5".
"""

import functools
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.convert.names import LINEAR, Row, Table
from sam_audio_jax.convert.tensors import State, Tensor
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute

TIED = "encoder.embed_tokens.weight"  # the same tensor as shared.weight
UNUSED = ("decoder.", "lm_head.")  # old t5-base files hold the decoder too

# Key of `config.json` -> our field.
FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "width",
    "d_kv": "head_dim",
    "num_heads": "heads",
    "d_ff": "mlp",
    "num_layers": "depth",
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "eps",
}


def t5_rows(depth: int) -> list[Row]:
    """Every tensor of the encoder; the distance bias of block 0 serves all blocks."""
    vectors = Row("shared.weight", "embed.embedding")
    if not depth:
        return [vectors]
    theirs, ours = "encoder.block.{layer}.layer", "blocks"
    attention = {"q": "query", "k": "key", "v": "value", "o": "out"}
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return [
        vectors,
        Row(bias, "distance_bias"),
        Row(f"{theirs}.0.layer_norm.weight", f"{ours}.attention_norm.scale"),
        *(
            Row(f"{theirs}.0.SelfAttention.{t}.weight", f"{ours}.attention.{o}.kernel", LINEAR)
            for t, o in attention.items()
        ),
        Row(f"{theirs}.1.layer_norm.weight", f"{ours}.mlp_norm.scale"),
        Row(f"{theirs}.1.DenseReluDense.wi.weight", f"{ours}.mlp.up.kernel", LINEAR),
        Row(f"{theirs}.1.DenseReluDense.wo.weight", f"{ours}.mlp.down.kernel", LINEAR),
        Row("encoder.final_layer_norm.weight", "norm.scale"),
    ]


@functools.lru_cache(maxsize=16)
def t5_table(config: T5Config) -> Table[T5Encoder]:
    """The names of all tensors of an encoder of this configuration."""
    return Table(
        lambda: T5Encoder(config, rngs=Rngs(0)),
        t5_rows(config.depth),
        config.depth,
        "T5 checkpoint",
    )


def encoder_only(state: State) -> dict[str, Tensor]:
    """The tensors without the decoder and the tied copy of the embedding."""
    return {name: w for name, w in state.items() if name != TIED and not name.startswith(UNUSED)}


def t5_config(values: Mapping[str, Any], dtype: Compute = "float32") -> T5Config:
    """Reads a T5 `config.json`. Raises `UserError` for a feed-forward with a gate."""
    kind = values.get("feed_forward_proj", "relu")
    if kind != "relu":
        raise UserError(f"T5 config: feed_forward_proj={kind!r} is not supported, only 'relu'")
    fields: dict[str, Any] = {
        ours: values[theirs] for theirs, ours in FIELDS.items() if theirs in values
    }
    return T5Config(**fields, dtype=dtype)


def t5_config_to_reference(config: T5Config) -> dict[str, Any]:
    """The inverse of `t5_config`, with what transformers needs to load the encoder."""
    return {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()} | {
        "architectures": ["T5EncoderModel"],
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": False,
        "model_type": "t5",
        "pad_token_id": 0,
    }
