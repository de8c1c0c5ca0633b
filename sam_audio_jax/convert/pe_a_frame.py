"""The span predictor PE-A-Frame: its `config.json`, the names of its tensors, its folder.

The network: docs/prompt_encoders.md, "PE-A-Frame". `convert/peav.py` has its two transformers.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from sam_audio_jax.convert.codec import ALPHA
from sam_audio_jax.convert.model_files import (
    TOKENIZER_FILES,
    find_folder,
    has_tokenizer,
    open_state,
    reading,
    weight_files,
)
from sam_audio_jax.convert.names import CONV, LINEAR, Row, Table
from sam_audio_jax.convert.peav import (
    fields_of,
    modernbert_config,
    modernbert_rows,
    peav_config,
    peav_rows,
    refuse_others,
    without_unread,
)
from sam_audio_jax.convert.tensors import State, Tensor
from sam_audio_jax.encoders.span_predictor import SpanPredictor, SpanPredictorConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute

NAMES = ("pe-a-frame-small", "pe-a-frame-base", "pe-a-frame-large")  # as SAM Audio's config says
HUB = "facebook/"
TOKENIZER = "answerdotai/ModernBERT-large"  # where the model's folder has none
PATTERNS = (
    "config.json",
    *weight_files("checkpoint"),
    *weight_files("model"),
    *TOKENIZER_FILES,
)
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
    return [*rows, *wave_rows(len(config.encoder_rates))] if config.waves else rows


def wave_rows(depth: int, prefix: str = CODEC) -> list[Row]:
    """Every tensor of a codec encoder without weight norm, for `depth` strided blocks."""
    theirs, ours = f"{prefix}encoder", "wave_encoder.encoder"
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
        *_conv(f"{prefix}bottleneck.in_proj", "wave_encoder.in_proj"),
    ]


def _conv(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", f"{ours}.kernel", CONV), Row(f"{theirs}.bias", f"{ours}.bias")]


def used(state: State, config: SpanPredictorConfig) -> dict[str, Tensor]:
    """The tensors without those that no forward pass reads.

    Left out are the text layers after the last one used, the text model's final norm, the output
    projection of the codec's bottleneck and, in a predictor for latents, the codec's encoder.
    """
    unread = f"{CODEC}bottleneck.out_proj." if config.waves else CODEC
    return without_unread(state, config.text.depth, unread)


def span_predictor_table(config: SpanPredictorConfig) -> Table[SpanPredictor]:
    """The names of all tensors that a span predictor of this configuration uses."""
    return Table(
        lambda: SpanPredictor(config, rngs=Rngs(0)),
        span_predictor_rows(config),
        0,  # each row names its own layers
        "span predictor checkpoint",
    )


def span_predictor_config(
    values: Mapping[str, Any], *, compute: Compute = "float32", waves: bool = False
) -> SpanPredictorConfig:
    """Reads the reference's `config.json`; with `waves` the predictor has a codec encoder.

    Raises `UserError` for settings that are not built here.
    """
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
    compute: Compute = "float32",
    waves: bool = False,
    mesh: Mesh | None = None,
) -> tuple[SpanPredictor, str]:
    """Reads a span predictor; returns it and the name of its tokenizer, for `tokenizer_for`.

    `path` is a folder with `config.json` and `checkpoint` or `model` (.safetensors, .pt), a
    Hugging Face id or a name as in SAM Audio's config (`pe-a-frame-large`). With `waves` the
    predictor has its own codec encoder and takes recordings as well as latents. Raises `UserError`
    when there is none or when it does not fit; one line names every misfit.
    """
    name = HUB + str(path) if str(path) in NAMES and not pathlib.Path(path).is_dir() else str(path)
    folder = find_folder(name, PATTERNS)
    with reading(folder):
        values = read_object(folder / "config.json")
        config = span_predictor_config(values, compute=compute, waves=waves)
        state = open_state(folder, "checkpoint", "model")
    try:
        predictor = span_predictor_table(config).build(used(state, config), mesh)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return predictor, str(folder) if has_tokenizer(folder) else TOKENIZER
