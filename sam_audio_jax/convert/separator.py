"""The separator: its part of `config.json` and the names of its tensors (docs/model.md).

Heads: the reference splits channels as `(element, head)` and rotates neighbouring elements; ours
are `(head, half, pair)` (see `nn/attention.py`, `nn/rope.py`). Queries, keys and their norms are
reordered here, values only from `(element, head)` to `(head, element)`; nothing else changes.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.convert.names import (
    CONV,
    LINEAR,
    PAIRS,
    POINTWISE,
    SAME,
    Row,
    Table,
    TensorLayout,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig

# Keys of `config.json`'s "transformer" with the class defaults of the reference.
TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "dim": 2048,
    "n_heads": 16,
    "n_layers": 16,
    "dropout": 0.1,
    "norm_eps": 1e-5,
    "qk_norm": True,
    "fc_bias": False,
    "ffn_exp": 4,
    "ffn_dim_multiplier": 1,
    "multiple_of": 64,
    "non_linearity": "swiglu",
    "use_rope": True,
    "max_positions": 10_000,
    "frequency_embedding_dim": 256,
    "timestep_non_linearity": "swiglu",
    "t_block_non_linearity": "silu",
    "t_block_bias": True,
    "context_dim": 2048,
    "context_non_linearity": "swiglu",
    "context_embedder_dropout": 0.0,
    "context_norm": False,
    "out_channels": 256,
    "in_channels": None,
}
# Ours, of models for few steps alone: whether the size of a solver step has an embedding.
STEP_SIZE = "step_size_embedding"
# The released models have these values; no other is built here.
FIXED = (
    "fc_bias",
    "non_linearity",
    "use_rope",
    "timestep_non_linearity",
    "t_block_non_linearity",
    "t_block_bias",
    "context_non_linearity",
    "in_channels",
)


def _rotated(heads: int) -> TensorLayout:
    """Kernels of queries and keys."""
    return TensorLayout(
        lambda w: w.reshape(-1, 2, heads, w.shape[1]).transpose(3, 2, 1, 0).reshape(w.shape[::-1]),
        lambda w: w.reshape(w.shape[0], heads, 2, -1).transpose(3, 2, 1, 0).reshape(w.shape[::-1]),
    )


def _headwise(heads: int) -> TensorLayout:
    """Kernels of values."""
    return TensorLayout(
        lambda w: w.reshape(-1, heads, w.shape[1]).transpose(2, 1, 0).reshape(w.shape[::-1]),
        lambda w: w.reshape(w.shape[0], heads, -1).transpose(2, 1, 0).reshape(w.shape[::-1]),
    )


def _gated(theirs: str, ours: str) -> list[Row]:
    pairs = {"w1": "gate", "w3": "up", "w2": "down"}
    return [
        Row(f"{theirs}.{w}.weight", f"{ours}.{name}.kernel", LINEAR) for w, name in pairs.items()
    ]


def _attention(theirs: str, ours: str, config: DitConfig) -> list[Row]:
    rotated = _rotated(config.heads)
    rows = [
        Row(f"{theirs}.wq.weight", f"{ours}.query.kernel", rotated),
        Row(f"{theirs}.wk.weight", f"{ours}.key.kernel", rotated),
        Row(f"{theirs}.wv.weight", f"{ours}.value.kernel", _headwise(config.heads)),
        Row(f"{theirs}.wo.weight", f"{ours}.out.kernel", LINEAR),
    ]
    if config.qk_norm:
        rows.append(Row(f"{theirs}.q_norm.weight", f"{ours}.query_norm.scale", PAIRS))
        rows.append(Row(f"{theirs}.k_norm.weight", f"{ours}.key_norm.scale", PAIRS))
    return rows


def conv_block_rows(theirs: str, ours: str) -> list[Row]:
    """A `nn.patcher.ConvBlock`; the span predictor has the same."""
    return [
        Row(f"{theirs}.groupnorm.weight", f"{ours}.norm.scale"),
        Row(f"{theirs}.groupnorm.bias", f"{ours}.norm.bias"),
        Row(f"{theirs}.project.weight", f"{ours}.kernel", CONV),
        Row(f"{theirs}.project.bias", f"{ours}.bias"),
    ]


def _block(config: DitConfig) -> list[Row]:
    theirs, ours = "transformer.layers.{layer}", "dit.blocks"
    return [
        Row(f"{theirs}.scale_shift_table", f"{ours}.modulation"),
        Row(f"{theirs}.attention_norm.weight", f"{ours}.attention_norm.scale"),
        *_attention(f"{theirs}.attention", f"{ours}.attention", config),
        *_attention(f"{theirs}.cross_attention", f"{ours}.cross_attention", config),
        Row(f"{theirs}.ffn_norm.weight", f"{ours}.mlp_norm.scale"),
        *_gated(f"{theirs}.feed_forward", f"{ours}.mlp"),
    ]


def separator_rows(config: SeparatorConfig) -> list[Row]:
    """Every tensor of a separator of this configuration."""
    patcher = "transformer.x_embedder.block"
    rows = [
        Row("proj.weight", "project.kernel", LINEAR),
        Row("proj.bias", "project.bias"),
        Row("align_masked_video.conv.weight", "align_video.project.kernel", POINTWISE),
        Row("align_masked_video.conv.bias", "align_video.project.bias"),
        Row("align_masked_video.layer_norm.weight", "align_video.norm.scale"),
        Row("align_masked_video.layer_norm.bias", "align_video.norm.bias"),
        Row("align_masked_video.gate", "align_video.gate", SAME),
        Row("embed_anchors.embed.weight", "embed_anchors.embed"),
        Row("embed_anchors.proj.weight", "embed_anchors.project.kernel", LINEAR),
        Row("embed_anchors.gate", "embed_anchors.gate"),
        Row("memory_proj.weight", "project_text.kernel", LINEAR),
        Row("memory_proj.bias", "project_text.bias"),
        *_gated("transformer.t_embedder.projection", "dit.time.project"),
        Row("transformer.t_block.weight", "dit.time.to_blocks.kernel", LINEAR),
        Row("transformer.t_block.bias", "dit.time.to_blocks.bias"),
        *_gated("transformer.y_embedder.projection", "dit.context"),
        *conv_block_rows(f"{patcher}.block1", "dit.patcher.first"),
        *conv_block_rows(f"{patcher}.block2", "dit.patcher.second"),
        *_block(config.dit),
        Row("transformer.norm.weight", "dit.norm.scale"),
        Row("transformer.final_layer_scale_shift_table", "dit.modulation"),
        Row("transformer.output.weight", "dit.out.kernel", LINEAR),
    ]
    if config.dit.step_size:
        rows += _gated("transformer.step_embedder.projection", "dit.step_size.project")
    if config.dit.context_norm:
        rows.append(Row("transformer.y_embedder.norm.weight", "dit.context_norm.scale"))
    return rows


@functools.lru_cache(maxsize=16)
def separator_table(config: SeparatorConfig) -> Table[Separator]:
    """The names of all tensors of a separator of this configuration."""
    return Table(
        lambda: Separator(config, rngs=Rngs(0)),
        separator_rows(config),
        config.dit.depth,
        "separator checkpoint",
    )


def separator_config(config: Mapping[str, Any], compute: Compute) -> SeparatorConfig:
    """Reads all of `config.json` that is about the separator; defaults must be filled in.

    Raises `UserError` for widths that contradict each other, and as `dit_from_reference`.
    """
    if config["in_channels"] % 6:
        raise UserError(f"config.json: in_channels={config['in_channels']} must be a multiple of 6")
    channels = config["in_channels"] // 6
    dit = dit_from_reference(config["transformer"], compute)
    out = config["transformer"].get("out_channels", TRANSFORMER_DEFAULTS["out_channels"])
    if out != 2 * channels:
        raise UserError(
            f"config.json: transformer.out_channels={out} must be a third of "
            f"in_channels={config['in_channels']}"
        )
    return SeparatorConfig(
        dit=dit,
        channels=channels,
        text_width=config["text_encoder"]["dim"],
        video_width=config["vision_encoder"]["dim"],
        anchors=config["num_anchors"],
        anchor_width=config["anchor_embedding_dim"],
    )


def feed_forward_size(transformer: Mapping[str, Any]) -> int:
    """Hidden width of the SwiGLU feed-forward (docs/model.md, "Gated projections")."""
    size = int(2 * int(transformer["ffn_exp"] * transformer["dim"]) / 3)
    size = int(transformer["ffn_dim_multiplier"] * size)
    multiple = transformer["multiple_of"]
    return multiple * math.ceil(size / multiple)


def dit_from_reference(transformer: Mapping[str, Any], dtype: Compute) -> DitConfig:
    """Reads "transformer" of `config.json`.

    Raises `UserError` for unknown keys and for settings that no released model has.
    """
    unknown = sorted(set(transformer) - {*TRANSFORMER_DEFAULTS, STEP_SIZE})
    if unknown:
        raise UserError(
            f"config.json: unknown key transformer.{unknown[0]}, allowed are "
            + ", ".join(TRANSFORMER_DEFAULTS)
        )
    full = TRANSFORMER_DEFAULTS | dict(transformer)
    for key in FIXED:
        if full[key] != TRANSFORMER_DEFAULTS[key]:
            raise UserError(
                f"config.json: transformer.{key}={full[key]!r} is not supported, "
                f"only {TRANSFORMER_DEFAULTS[key]!r}"
            )
    if full["context_dim"] != full["dim"]:
        raise UserError(
            f"config.json: transformer.context_dim={full['context_dim']} "
            f"must equal transformer.dim={full['dim']}"
        )
    return DitConfig(
        depth=full["n_layers"],
        width=full["dim"],
        heads=full["n_heads"],
        mlp=feed_forward_size(full),
        dropout=full["dropout"],
        context_dropout=full["context_embedder_dropout"],
        norm_eps=full["norm_eps"],
        qk_norm=full["qk_norm"],
        context_norm=full["context_norm"],
        max_positions=full["max_positions"],
        frequency_width=full["frequency_embedding_dim"],
        step_size=bool(full.get(STEP_SIZE)),
        dtype=dtype,
    )


def dit_to_reference(config: DitConfig, out_channels: int, known: Mapping[str, Any]) -> dict:
    """The inverse of `dit_from_reference`; `known` is a "transformer" whose other keys are kept."""
    full = TRANSFORMER_DEFAULTS | dict(known)
    full |= {
        "dim": config.width,
        "n_heads": config.heads,
        "n_layers": config.depth,
        "dropout": config.dropout,
        "norm_eps": config.norm_eps,
        "qk_norm": config.qk_norm,
        "max_positions": config.max_positions,
        "frequency_embedding_dim": config.frequency_width,
        "context_dim": config.width,
        "context_embedder_dropout": config.context_dropout,
        "context_norm": config.context_norm,
        "out_channels": out_channels,
    }
    if config.step_size:
        full[STEP_SIZE] = True
    if feed_forward_size(full) != config.mlp:  # any size is a multiple of itself
        full |= {"ffn_exp": 1, "ffn_dim_multiplier": 1, "multiple_of": config.mlp}
        if feed_forward_size(full) != config.mlp:
            full["ffn_dim_multiplier"] = config.mlp / config.width
    return full
