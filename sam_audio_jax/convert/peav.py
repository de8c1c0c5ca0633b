"""The two transformers of the span predictor: their sections of `config.json`, names of tensors.

These are PEAV over audio frames and ModernBERT over texts (docs/prompt_encoders.md). Reference
names start with the argument `theirs`, paths of our parameters with `ours`, dots included.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sam_audio_jax.convert.names import LINEAR, PAIRS, SAME, Row, TensorLayout, neighbours
from sam_audio_jax.convert.separator import conv_block_rows
from sam_audio_jax.convert.tensors import State, Tensor
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.storage import Compute

# Keys of `config.json` -> our fields with the defaults of the reference's classes.
PEAV_FIELDS = {
    "num_hidden_layers": ("depth", 16),
    "hidden_size": ("width", 1024),
    "num_attention_heads": ("heads", 8),
    "intermediate_size": ("mlp", 2752),
    "rms_norm_eps": ("norm_eps", 1e-5),
    "max_position_embeddings": ("max_positions", 10_000),
}
TEXT_FIELDS = {
    "vocab_size": ("vocab_size", 50_368),
    "hidden_size": ("width", 1024),
    "num_attention_heads": ("heads", 16),
    "intermediate_size": ("mlp", 2624),
    "local_attention": ("window", 128),
    "norm_eps": ("eps", 1e-5),
}
# Kinds of ModernBERT's layers -> key and default of their base of rotation.
THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
# Settings that are not built; any other value than this is refused.
PEAV_FIXED = {"hidden_act": "silu", "attention_bias": False}
TEXT_FIXED = {
    "hidden_activation": "gelu",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
}


def peav_rows(theirs: str, ours: str, config: PeavConfig) -> list[Row]:
    """Every tensor of a PEAV transformer; its heads are outermost, unlike the separator's."""
    attention = {"q": "query", "k": "key", "v": "value", "o": "out"}
    layouts = dict.fromkeys("qk", neighbours(config.heads))
    rows = [Row(f"{theirs}embeddings.cls_token", f"{ours}class_token")]
    for number, name in ((1, "first"), (2, "second")):
        block = f"{theirs}embeddings.resnet_block.block{number}"
        rows += conv_block_rows(block, f"{ours}patcher.{name}")
    in_layers = [
        ("input_layernorm.weight", "attention_norm.scale", SAME),
        *(
            (f"self_attn.{t}_proj.weight", f"attention.{o}.kernel", layouts.get(t, LINEAR))
            for t, o in attention.items()
        ),
        ("self_attn.q_norm.weight", "attention.query_norm.scale", PAIRS),
        ("self_attn.k_norm.weight", "attention.key_norm.scale", PAIRS),
        ("post_attention_layernorm.weight", "mlp_norm.scale", SAME),
        *((f"mlp.{n}_proj.weight", f"mlp.{n}.kernel", LINEAR) for n in ("gate", "up", "down")),
    ]
    return [
        *rows,
        *_layer_rows(f"{theirs}layers", f"{ours}blocks", in_layers, range(config.depth)),
        Row(f"{theirs}norm.weight", f"{ours}norm.scale"),
        Row(f"{theirs}output.weight", f"{ours}out.kernel", LINEAR),
    ]


def modernbert_rows(theirs: str, ours: str, config: ModernBertConfig) -> list[Row]:
    """Every tensor of the text model that is used. Layer 0 has no norm before its attention."""
    in_layers = [
        *(("attn.Wqkv.weight", f"attention.{o}.kernel", LINEAR) for o in ("query", "key", "value")),
        ("attn.Wo.weight", "attention.out.kernel", LINEAR),
        ("mlp_norm.weight", "mlp_norm.scale", SAME),
        ("mlp.Wi.weight", "mlp.gate.kernel", LINEAR),  # the first half meets the activation
        ("mlp.Wi.weight", "mlp.up.kernel", LINEAR),
        ("mlp.Wo.weight", "mlp.down.kernel", LINEAR),
    ]
    scales = f"{theirs}layers.{{layer}}.attn_norm.weight"
    return [
        Row(f"{theirs}embeddings.tok_embeddings.weight", f"{ours}embed.embedding"),
        Row(f"{theirs}embeddings.norm.weight", f"{ours}embed_norm.scale"),
        Row(scales, f"{ours}attention_scales", layers=range(1, config.depth)),
        *_layer_rows(f"{theirs}layers", f"{ours}blocks", in_layers, range(config.depth)),
    ]


def _layer_rows(
    theirs: str, ours: str, table: Sequence[tuple[str, str, TensorLayout]], layers: range
) -> list[Row]:
    return [Row(f"{theirs}.{{layer}}.{t}", f"{ours}.{o}", layout, layers) for t, o, layout in table]


def without_unread(state: State, depth: int, *unread: str) -> dict[str, Tensor]:
    """The tensors but for those whose names begin with `unread`, and those of texts not read.

    These are ModernBERT's layers from `depth` on and its final norm.
    """
    layers = re.compile(r"text_model\.layers\.(\d+)\.")

    def is_read(name: str) -> bool:
        layer = layers.match(name)
        too_late = layer is not None and int(layer[1]) >= depth
        return not (too_late or name.startswith(("text_model.final_norm.", *unread)))

    return {name: tensor for name, tensor in state.items() if is_read(name)}


def peav_config(values: Mapping[str, Any], where: str, compute: Compute = "float32") -> PeavConfig:
    """Reads the section of `config.json` of a PEAV transformer; errors call it `where`.

    Its `rope_theta` is not read, because the reference's code does not read it either. Raises
    `UserError` for settings that are not built here.
    """
    config = PeavConfig(**fields_of(values, PEAV_FIELDS), dtype=compute)
    heads = {"num_key_value_heads": config.heads, "head_dim": config.head_dim}
    refuse_others(values, PEAV_FIXED | heads, where)
    return config


def modernbert_config(
    values: Mapping[str, Any], where: str, layers: int, compute: Compute = "float32"
) -> ModernBertConfig:
    """Reads the text model's section, called `where` in errors; its first `layers` layers are run.

    Both spellings of transformers are read: `global_attn_every_n_layers` and `*_rope_theta` of
    version 4, `layer_types` and `rope_parameters` of version 5. Raises `UserError` for settings
    that are not built here.
    """
    refuse_others(values, TEXT_FIXED, where)
    total = values.get("num_hidden_layers", 28)
    if not 1 <= layers <= total:
        raise UserError(
            f"config.json: nth_text_layer={layers} must be 1 to {total}, {where}'s layers"
        )
    every = values.get("global_attn_every_n_layers", 3)
    kinds = values.get("layer_types")
    if kinds is not None:
        every = (kinds + kinds[:1]).index(kinds[0], 1)
        wanted = ["sliding_attention" if i % every else "full_attention" for i in range(total)]
        if kinds != wanted:
            raise UserError(
                f"config.json: {where}.layer_types must repeat one global layer and "
                "an equal number of local ones"
            )
    thetas = _rope_thetas(values, where)
    return ModernBertConfig(
        **fields_of(values, TEXT_FIELDS),
        depth=layers,
        global_every=every,
        global_theta=thetas["full_attention"],
        local_theta=thetas["sliding_attention"],
        dtype=compute,
    )


def _rope_thetas(values: Mapping[str, Any], where: str) -> dict[str, float]:
    """The base of the rotations of each kind of layer. Raises `UserError` for scaled rotations."""
    rope = values.get("rope_parameters") or {}
    wrong = {f"rope_parameters.{kind}" for kind in set(rope) - set(THETAS)}
    thetas = {}
    for kind, (field, default) in THETAS.items():
        own = rope.get(kind) or {}
        wrong |= {f"rope_parameters.{kind}.{key}" for key in set(own) - {"rope_theta", "rope_type"}}
        if own.get("rope_type", "default") != "default":
            wrong.add(f"rope_parameters.{kind}.rope_type")
        thetas[kind] = own.get("rope_theta", values.get(field, default))
    if values.get("rope_scaling") is not None:
        wrong.add("rope_scaling")
    if wrong:
        raise UserError(
            f"config.json: {where}.{min(wrong)} is not supported, only rope_parameters with "
            f"rope_theta and rope_type 'default' of {' and '.join(THETAS)}"
        )
    return thetas


def to_fields(config: Any, table: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The inverse of `fields_of`: the section of `config.json` of one of our configs."""
    values = {theirs: getattr(config, ours) for theirs, (ours, _) in table.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def modernbert_config_to_reference(config: ModernBertConfig) -> dict[str, Any]:
    """The inverse of `modernbert_config`, of a text model whose layers are all run."""
    return to_fields(config, TEXT_FIELDS) | {
        "num_hidden_layers": config.depth,
        "global_attn_every_n_layers": config.global_every,
        "global_rope_theta": config.global_theta,
        "local_rope_theta": config.local_theta,
    }


def fields_of(values: Mapping[str, Any], table: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Values of our fields; for a missing or null key the default of the reference's class."""
    return {
        ours: default if values.get(theirs) is None else values[theirs]
        for theirs, (ours, default) in table.items()
    }


def refuse_others(values: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` for settings other than those in `fixed`; None means the default."""
    wrong = [
        f"{where}.{key}={values[key]!r} is not supported, only {value!r}"
        for key, value in fixed.items()
        if values.get(key) not in (None, value)
    ]
    if wrong:
        raise UserError(f"config.json: {'; '.join(wrong)}")
