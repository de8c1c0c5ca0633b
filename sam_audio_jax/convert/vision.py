"""The Perception Encoder: its config and the names of its tensors.

The network: docs/prompt_encoders.md, "Perception Encoder".

A file of the whole CLIP model also holds its text tower and `logit_scale`, which nothing here runs:
`tower_and_rest` separates them, so that a writer can put them back. A SAM Audio checkpoint has all
of it under `vision_encoder.model.`.

Heads: the reference rotates neighbouring elements of queries and keys, ours are
`(head, half, pair)` (see `nn/rope.py`), so their rows are reordered.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from sam_audio_jax.convert.names import (
    LINEAR,
    SAME,
    Row,
    Table,
    TensorLayout,
    neighbours,
    norm_rows,
)
from sam_audio_jax.convert.tensors import State, Tensor
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute

SAM_AUDIO_PREFIX = "vision_encoder.model."
TOWER = "visual."
# The rest of the CLIP model. Its `transformer.` is the text tower's.
REST = (
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "logit_scale",
)
RELEASED = {"PE-Core-L14-336": VisionConfig()}

# Key of the reference's model configuration -> our field.
FIELDS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "width": "width",
    "layers": "depth",
    "heads": "heads",
    "output_dim": "output",
    "use_cls_token": "class_token",
    "ls_init_value": "layer_scale",
    "attn_pooler_heads": "pool_heads",
}
# Settings of the reference that are not built; any other value than this is refused.
FIXED = {
    "pool_type": "attn",
    "use_abs_posemb": True,
    "use_rope2d": True,
    "use_ln_pre": True,
    "use_ln_post": True,
}
# Of no effect on a tower that is run: a setting of training, and how fixtures were drawn.
UNUSED = ("drop_path", "seed", "input_sizes")


def _patches(side: int) -> TensorLayout:
    """A convolution with stride = window, `[out, 3, y, x]` <-> a matrix `[(y, x, 3), out]`."""
    return TensorLayout(
        lambda w: w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0]),
        lambda w: w.reshape(side, side, 3, -1).transpose(3, 2, 0, 1),
    )


def _attention(theirs: str, ours: str, rotated: TensorLayout) -> list[Row]:
    fused = {"query": rotated, "key": rotated, "value": LINEAR}
    return [
        *(
            Row(f"{theirs}.in_proj_{t}", f"{ours}.{name}.{o}", layout)
            for t, o in (("weight", "kernel"), ("bias", "bias"))
            for name, layout in fused.items()
        ),
        Row(f"{theirs}.out_proj.weight", f"{ours}.out.kernel", LINEAR),
        Row(f"{theirs}.out_proj.bias", f"{ours}.out.bias"),
    ]


def _mlp(theirs: str, ours: str) -> list[Row]:
    return [
        row
        for t, o in (("c_fc", "up"), ("c_proj", "down"))
        for row in (
            Row(f"{theirs}.{t}.weight", f"{ours}.{o}.kernel", LINEAR),
            Row(f"{theirs}.{t}.bias", f"{ours}.{o}.bias"),
        )
    ]


def vision_rows(config: VisionConfig) -> list[Row]:
    """Every tensor of the tower."""
    block = f"{TOWER}transformer.resblocks.{{layer}}"
    rows = [
        Row(f"{TOWER}conv1.weight", "patch.kernel", _patches(config.patch_size)),
        Row(f"{TOWER}positional_embedding", "positions"),
        *norm_rows(f"{TOWER}ln_pre", "norm_in"),
        *norm_rows(f"{block}.ln_1", "blocks.attention_norm"),
        *_attention(f"{block}.attn", "blocks.attention", neighbours(config.heads)),
        *norm_rows(f"{block}.ln_2", "blocks.mlp_norm"),
        *_mlp(f"{block}.mlp", "blocks.mlp"),
        *norm_rows(f"{TOWER}ln_post", "norm_out"),
        Row(
            f"{TOWER}attn_pool.probe", "pool.probe", TensorLayout(lambda w: w[0], lambda w: w[None])
        ),
        *_attention(f"{TOWER}attn_pool.attn", "pool.attention", LINEAR),
        *norm_rows(f"{TOWER}attn_pool.layernorm", "pool.norm"),
        *_mlp(f"{TOWER}attn_pool.mlp", "pool.mlp"),
        Row(f"{TOWER}proj", "project.kernel", SAME),  # the only matrix stored as [in, out]
    ]
    if config.class_token:
        rows.append(Row(f"{TOWER}class_embedding", "class_token"))
    if config.layer_scale is not None:
        rows.append(Row(f"{block}.ls_1.gamma", "blocks.attention_scale.gain"))
        rows.append(Row(f"{block}.ls_2.gamma", "blocks.mlp_scale.gain"))
    return rows


def tower_and_rest(state: State, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tower's tensors under `visual.`, and the unused rest under its full names.

    Names that do not start with `prefix` are in neither. A name under it that is not part of the
    CLIP model is counted to the tower, so that the check of the tower names it.
    """
    tower, rest = {}, {}
    for full, tensor in state.items():
        name = full.removeprefix(prefix)
        if not full.startswith(prefix):
            continue
        if name.startswith(REST):
            rest[full] = tensor
        else:
            tower[name] = tensor
    return tower, rest


def vision_table(config: VisionConfig) -> Table[VisionEncoder]:
    """The names of all tensors of a tower of this configuration."""
    return Table(
        lambda: VisionEncoder(config, rngs=Rngs(0)),
        vision_rows(config),
        config.depth,
        "vision tower",
    )


def vision_from_reference(
    state: State, config: VisionConfig, prefix: str = "", mesh: Mesh | None = None
) -> VisionEncoder:
    """Builds the tower. Raises `UserError` that names every tensor that does not fit."""
    return vision_table(config).build(tower_and_rest(state, prefix)[0], mesh)


def tower_config(values: Mapping[str, Any], dtype: Compute = "float32") -> VisionConfig:
    """Reads the reference's model configuration (keys of `FIELDS` and `FIXED`, `mlp_ratio`).

    Raises `UserError` for unknown keys and for settings that are not built here.
    """
    for key, only in FIXED.items():
        if values.get(key, only) != only:
            raise UserError(
                f"vision config: {key}={shown(values[key])} is not supported, only {only!r}"
            )
    known = (*FIELDS, "mlp_ratio", *FIXED)
    if unknown := sorted(set(values) - {*known, *UNUSED}):
        raise UserError(f"vision config: unknown key {unknown[0]}, allowed are {', '.join(known)}")
    fields: dict[str, Any] = {
        ours: values[theirs] for theirs, ours in FIELDS.items() if theirs in values
    }
    width = fields.get("width", VisionConfig.width)
    fields["mlp"] = int(width * values.get("mlp_ratio", 4.0))
    return VisionConfig(**fields, dtype=dtype)


def tower_config_to_reference(config: VisionConfig) -> dict[str, Any]:
    """The inverse of `tower_config`."""
    ratio = config.mlp / config.width
    if int(config.width * ratio) != config.mlp:  # the product was rounded down
        ratio = math.nextafter(ratio, math.inf)
    return {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()} | {
        "mlp_ratio": ratio,
        "pool_type": "attn",
    }


def released_config(values: Mapping[str, Any], dtype: Compute = "float32") -> VisionConfig:
    """The tower that "vision_encoder" of a SAM Audio `config.json` names.

    Raises `UserError` for an unknown name, or for settings that contradict it.
    """
    name = values["name"]
    if name not in RELEASED:
        raise UserError(
            f"config.json: vision_encoder.name={name!r} is unknown; known: {', '.join(RELEASED)}"
        )
    config = RELEASED[name]
    for key, only in (("interpolation_mode", "BICUBIC"), ("dim", config.output)):
        if values.get(key, only) != only:
            raise UserError(
                f"config.json: vision_encoder.{key}={values[key]!r} is not supported "
                f"with {name}, only {only!r}"
            )
    return dataclasses.replace(config, dtype=dtype)
