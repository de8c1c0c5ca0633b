"""Reference names of the span predictor's tensors, its config, its folder.

Arithmetic: docs/prompt_encoders.md, "PE-A-Frame". `convert/peav.py` has both transformers.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.convert.codec import ALPHA
from sam_audio_jax.convert.files import find_folder, open_state, read_json
from sam_audio_jax.convert.names import CONV, LINEAR, Row, Table, to_reference
from sam_audio_jax.convert.peav import (
    fields_of,
    modernbert_config,
    modernbert_rows,
    peav_config,
    peav_rows,
    refuse_others,
)
from sam_audio_jax.convert.tensors import State, Tensor
from sam_audio_jax.convert.upstream_config import Dtype
from sam_audio_jax.encoders.span_predictor import SpanPredictor, SpanPredictorConfig
from sam_audio_jax.errors import UserError

NAMES = ("pe-a-frame-small", "pe-a-frame-base", "pe-a-frame-large")  # as SAM Audio's config says
HUB = "facebook/"
TOKENIZER = "answerdotai/ModernBERT-large"  # where the model's folder has none
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CODEC = "audio_model.dac_vae_encoder."

# Keys of `config.json` -> our fields with the defaults of the reference's classes.
CODEC_FIELDS = {
    "encoder_hidden_size": ("encoder_dim", 64),
    "downsampling_ratios": ("encoder_rates", (2, 8, 10, 12)),
    "codebook_dim": ("channels", 128),
    "sampling_rate": ("sample_rate", 48_000),
}


def span_predictor_rows(config: SpanPredictorConfig) -> list[Row]:
    """Every tensor of a span predictor of this configuration."""
    rows = [
        Row("logit_scale", "logit_scale"),
        Row("logit_bias", "logit_bias"),
        Row("audio_model.data_proj.weight", "project.kernel", LINEAR),
        Row("audio_model.data_proj.bias", "project.bias"),
        *peav_rows("audio_model.audio_transformer.", "audio.", config.audio),
        *modernbert_rows("text_model.", "text.", config.text),
    ]
    for head in ("audio_head", "text_head"):
        rows += [
            Row(f"{head}.layer_norm.weight", f"{head}.norm.scale"),
            Row(f"{head}.layer_norm.bias", f"{head}.norm.bias"),
            Row(f"{head}.proj.weight", f"{head}.project.kernel", LINEAR),
        ]
    return [*rows, *_wave_rows(len(config.encoder_rates))] if config.waves else rows


def _wave_rows(depth: int) -> list[Row]:
    theirs, ours = f"{CODEC}encoder", "wave_encoder.encoder"
    rows = [*_conv(f"{theirs}.conv1", f"{ours}.stem")]
    for i in range(depth):
        block = f"{ours}.blocks.{i}"
        for j in range(3):
            unit, name = f"{theirs}.block.{i}.res_unit{j + 1}", f"{block}.units.{j}"
            rows += [
                Row(f"{unit}.snake1.alpha", f"{name}.snake_in.alpha", ALPHA),
                *_conv(f"{unit}.conv1", f"{name}.dilated"),
                Row(f"{unit}.snake2.alpha", f"{name}.snake_out.alpha", ALPHA),
                *_conv(f"{unit}.conv2", f"{name}.pointwise"),
            ]
        rows += [
            Row(f"{theirs}.block.{i}.snake1.alpha", f"{block}.snake.alpha", ALPHA),
            *_conv(f"{theirs}.block.{i}.conv1", f"{block}.down"),
        ]
    return [
        *rows,
        Row(f"{theirs}.snake1.alpha", f"{ours}.snake.alpha", ALPHA),
        *_conv(f"{theirs}.conv2", f"{ours}.out"),
        *_conv(f"{CODEC}bottleneck.in_proj", "wave_encoder.in_proj"),
    ]


def _conv(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", f"{ours}.kernel", CONV), Row(f"{theirs}.bias", f"{ours}.bias")]


def used(state: State, config: SpanPredictorConfig) -> dict[str, Tensor]:
    """The tensors without those that no forward pass reads.

    These are text layers beyond the last one used, the text model's final norm, the way out of the
    codec's bottleneck and, in a predictor for latents, the codec's encoder.
    """
    dead = (f"{CODEC}bottleneck.out_proj.", "text_model.final_norm.")
    dead = dead if config.waves else (CODEC, *dead)
    later = re.compile(r"text_model\.layers\.(\d+)\.")

    def is_used(name: str) -> bool:
        layer = later.match(name)
        too_late = layer is not None and int(layer[1]) >= config.text.depth
        return not (too_late or name.startswith(dead))

    return {name: tensor for name, tensor in state.items() if is_used(name)}


def span_predictor_table(config: SpanPredictorConfig) -> Table[SpanPredictor]:
    """Where a span predictor of this configuration is stored; each row names its own layers."""
    rows = span_predictor_rows(config)
    return Table(
        lambda: SpanPredictor(config, rngs=nnx.Rngs(0)), rows, 0, "span predictor checkpoint"
    )


def span_predictor_from_reference(
    state: State, config: SpanPredictorConfig, mesh: Mesh | None = None
) -> SpanPredictor:
    """Builds the predictor; raises `UserError` naming every tensor that does not fit."""
    return span_predictor_table(config).build(used(state, config), mesh)


def span_predictor_to_reference(predictor: SpanPredictor) -> dict[str, np.ndarray]:
    """The exact inverse of `span_predictor_from_reference`, without the unused tensors."""
    return to_reference(predictor, span_predictor_rows(predictor.config), 0)


def span_predictor_config(
    values: Mapping[str, Any], *, compute: Dtype = "float32", waves: bool = False
) -> SpanPredictorConfig:
    """Reads the reference's `config.json`; settings that are not built are `UserError`s."""
    audio = values.get("audio_model", {})
    codec = fields_of(audio.get("dac_vae_encoder", {}), CODEC_FIELDS)
    codec["encoder_rates"] = tuple(codec["encoder_rates"])
    width = codec["encoder_dim"] * 2 ** len(codec["encoder_rates"])
    where = "audio_model.dac_vae_encoder"
    refuse_others(audio.get("dac_vae_encoder", {}), {"codebook_size": width}, where)
    return SpanPredictorConfig(
        **codec,
        audio=peav_config(
            audio.get("audio_transformer", {}), "audio_model.audio_transformer", compute
        ),
        text=modernbert_config(
            values.get("text_model", {}), "text_model", values.get("nth_text_layer", 22), compute
        ),
        embed=values.get("output_dim", 1024),
        waves=waves,
    )


def load_span_predictor(
    path: str | pathlib.Path,
    *,
    compute: Dtype = "float32",
    waves: bool = False,
    mesh: Mesh | None = None,
) -> tuple[SpanPredictor, str]:
    """The predictor and the name of its tokenizer (`tokenizer_for`), from a folder with
    `config.json` and `checkpoint` or `model` (.safetensors, .pt) under the reference's names.

    `path` is a folder, a Hugging Face id or a name as in SAM Audio's config (`pe-a-frame-large`).
    With `waves` it holds its own codec encoder and takes recordings, not latents alone.
    UserError: nothing there, or what is there does not fit; all misfits in one line.
    """
    name = HUB + str(path) if str(path) in NAMES and not pathlib.Path(path).is_dir() else str(path)
    folder = find_folder(
        name, ("config.json", "checkpoint.*", "model.safetensors", *TOKENIZER_FILES)
    )
    config = span_predictor_config(read_json(folder / "config.json"), compute=compute, waves=waves)
    stem = "checkpoint" if list(folder.glob("checkpoint.*")) else "model"
    try:
        predictor = span_predictor_from_reference(open_state(folder, stem), config, mesh)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    own = any((folder / file).exists() for file in TOKENIZER_FILES)
    return predictor, str(folder) if own else TOKENIZER
