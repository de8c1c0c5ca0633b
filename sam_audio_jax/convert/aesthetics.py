"""Audiobox Aesthetics: config, names of tensors, published files (docs/scoring.md, "Aesthetics").

The released folder has `config.json` and `model.safetensors`. The older single file, a pickle, has
the same tensors under `state_dict`, each name after `model.`, beside its `model_cfg` and
`target_transform`. Code and weights are licensed CC BY 4.0.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from sam_audio_jax.convert.model_files import find_folder, open_state, reading
from sam_audio_jax.convert.names import (
    CONV,
    Row,
    Table,
    TensorLayout,
    linear_rows,
    norm_rows,
)
from sam_audio_jax.convert.peav import refuse_others
from sam_audio_jax.convert.tensors import (
    State,
    Tensor,
    open_torch,
    read_torch_entry,
)
from sam_audio_jax.encoders.wavlm import WavlmConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.aesthetics import AXES, Aesthetics, AestheticsConfig

RELEASED = "facebook/audiobox-aesthetics"  # on the Hugging Face hub
STATE_KEY, MODEL_KEY, RATINGS_KEY = "state_dict", "model_cfg", "target_transform"
PREFIX = "model."  # of the names in a pickle
WAVLM = "wavlm_model."
UNUSED = (f"{WAVLM}mask_emb",)  # of the encoder's own pre-training
# Settings of the heads that are not built; any other value than this is refused.
FIXED = {
    "proj_ln": True,
    "proj_act_fn": "gelu",
    "use_weighted_layer_sum": True,
    "normalize_embed": True,
    "output_dim": 1,
}
PER_TAP = TensorLayout(lambda w: w[0, 0], lambda w: w[None, None])  # scale of a weight norm
PER_HEAD = TensorLayout(lambda w: w[0, :, 0, 0], lambda w: w[None, :, None, None])


def wavlm_rows(theirs: str, ours: str, config: WavlmConfig) -> list[Row]:
    """Every parameter of the encoder; names begin with `theirs` and `ours`, dots included."""
    convs, block = f"{theirs}feature_extractor.conv_layers", f"{ours}blocks"
    rows = [
        Row(f"{convs}.{number}.0.weight", f"{ours}convs.{number}.kernel", CONV)
        for number in range(len(config.convolutions))
    ]
    layer = f"{theirs}encoder.layers.{{layer}}"
    attention = f"{layer}.self_attn"
    dense = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    return [
        *rows,
        *norm_rows(f"{convs}.0.2", f"{ours}convs.0"),
        *norm_rows(f"{theirs}layer_norm", f"{ours}features_norm"),
        *linear_rows(f"{theirs}post_extract_proj", f"{ours}project"),
        Row(f"{theirs}encoder.pos_conv.0.weight_v", f"{ours}position.direction", CONV),
        Row(f"{theirs}encoder.pos_conv.0.weight_g", f"{ours}position.scale", PER_TAP),
        Row(f"{theirs}encoder.pos_conv.0.bias", f"{ours}position.bias"),
        *norm_rows(f"{theirs}encoder.layer_norm", f"{ours}norm"),
        Row(
            f"{theirs}encoder.layers.0.self_attn.relative_attention_bias.weight",
            f"{ours}relative_bias",
        ),
        Row(f"{attention}.grep_a", f"{block}.gate.gain", PER_HEAD),
        *linear_rows(f"{attention}.grep_linear", f"{block}.gate.project"),
        *(
            row
            for t, o in dense.items()
            for row in linear_rows(f"{attention}.{t}", f"{block}.attention.{o}")
        ),
        *norm_rows(f"{attention}_layer_norm", f"{block}.attention_norm"),
        *linear_rows(f"{layer}.fc1", f"{block}.mlp.up"),
        *linear_rows(f"{layer}.fc2", f"{block}.mlp.down"),
        *norm_rows(f"{layer}.final_layer_norm", f"{block}.mlp_norm"),
    ]


def aesthetics_rows(config: AestheticsConfig) -> list[Row]:
    """Every parameter of encoder and heads."""
    rows = wavlm_rows(WAVLM, "wavlm.", config.wavlm)
    last = config.head_layers - 1
    for number, axis in enumerate(AXES):
        head = f"heads.{number}"
        rows.append(Row(f"layer_weights.{axis}", f"{head}.layer_weights"))
        for layer in range(last):  # linear, norm, activation: three entries of the reference's list
            rows += linear_rows(f"proj_layer.{axis}.{3 * layer}", f"{head}.layers.{layer}")
            rows += norm_rows(f"proj_layer.{axis}.{3 * layer + 1}", f"{head}.norms.{layer}")
        rows += linear_rows(f"proj_layer.{axis}.{3 * last}", f"{head}.out")
    return rows


def aesthetics_table(config: AestheticsConfig) -> Table[Aesthetics]:
    """The names of all tensors of a network of this configuration."""
    return Table(
        lambda: Aesthetics(config, rngs=Rngs(0)),
        aesthetics_rows(config),
        config.wavlm.depth,
        "aesthetics checkpoint",
    )


def used(state: State) -> dict[str, Tensor]:
    """The tensors without those that no forward pass reads."""
    return {name: tensor for name, tensor in state.items() if name not in UNUSED}


def aesthetics_from_reference(
    state: State, config: AestheticsConfig, mesh: Mesh | None = None
) -> Aesthetics:
    """Builds the network. Raises `UserError` that names every tensor that does not fit."""
    return aesthetics_table(config).build(used(state), mesh)


def aesthetics_config(
    values: Mapping[str, Any], ratings: Mapping[str, Any], wavlm: WavlmConfig | None = None
) -> AestheticsConfig:
    """Reads the reference's settings of the heads, and mean and deviation of the ratings by axis.

    Raises `UserError` for settings that are not built here.
    """
    wavlm = wavlm or WavlmConfig()
    refuse_others(values, FIXED, "heads")
    if values.get("nth_layer", wavlm.depth + 1) != wavlm.depth + 1:
        raise UserError(
            f"config.json: nth_layer={values['nth_layer']!r} is not supported, only "
            f"{wavlm.depth + 1}: the heads weigh all layers"
        )
    if absent := [axis for axis in AXES if axis not in ratings]:
        raise UserError(f"config.json: {RATINGS_KEY} lacks {', '.join(absent)}")
    return AestheticsConfig(
        wavlm=wavlm,
        head_layers=values.get("proj_num_layer", AestheticsConfig.head_layers),
        mean=tuple(ratings[axis]["mean"] for axis in AXES),
        deviation=tuple(ratings[axis]["std"] for axis in AXES),
    )


def load_aesthetics(name: str = RELEASED, mesh: Mesh | None = None) -> Aesthetics:
    """Reads a released network: a folder, a Hugging Face id, or the older single `.pt` file.

    Raises `UserError` when there is no such file or when it does not fit.
    """
    path = pathlib.Path(name)
    if path.is_file() and path.suffix == ".pt":
        tensors = open_torch(path, STATE_KEY)
        state = {full.removeprefix(PREFIX): tensor for full, tensor in tensors.items()}
        values, ratings = (read_torch_entry(path, key) for key in (MODEL_KEY, RATINGS_KEY))
    else:
        folder = find_folder(name, ("config.json", "model.safetensors"))
        state = open_state(folder, "model")
        values = read_object(folder / "config.json")
        ratings = values.get(RATINGS_KEY, {})
    with reading(name):
        config = aesthetics_config(values, ratings)
    return aesthetics_from_reference(state, config, mesh)
