"""A model folder in the upstream layout: read, and written whole or not at all (spec/model.md, 2).

    config.json                   upstream's keys
    checkpoint.safetensors | .pt  tensors under upstream's names: codec and separator
    t5/                           config.json, model.safetensors [, tokenizer files]: text encoder
    sam_audio_jax.json            ours: tokenizer, latent mean and std, sampler defaults, notes

An official folder has neither of the last two: its text encoder is the `t5-base` of config.json.
Upstream's vision tower, rankers and span predictor are left out when reading.
"""

import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import nnx

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.convert import codec as codec_table
from sam_audio_jax.convert.files import (
    find_folder,
    read_json,
    read_state,
    write_json,
    write_state,
)
from sam_audio_jax.convert.separator import (
    dit_from_reference,
    dit_to_reference,
    separator_from_reference,
    separator_to_reference,
)
from sam_audio_jax.convert.t5 import (
    t5_config,
    t5_config_to_reference,
    t5_from_reference,
    t5_to_reference,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig

Dtype = Literal["float32", "bfloat16"]
CODEC_PREFIX = "audio_codec."
ELSEWHERE = (
    "vision_encoder.",
    "text_encoder.",
    "visual_ranker.",
    "text_ranker.",
    "span_predictor.",
)
CODEC_FIELDS = (
    *("sample_rate", "encoder_dim", "encoder_rates", "latent_dim", "decoder_dim"),
    *("decoder_rates", "codebook_dim"),
)
# What upstream's codec config also holds and never uses.
CODEC_UNUSED = {"n_codebooks": 16, "codebook_size": 1024, "quantizer_dropout": False}
TOP_DEFAULTS: dict[str, Any] = {
    "in_channels": 768,
    "audio_codec": {},
    "text_encoder": {},
    "vision_encoder": {},
    "transformer": {},
    "num_anchors": 3,
    "anchor_embedding_dim": 128,
    "visual_ranker": None,
    "text_ranker": None,
    "span_predictor": "pe-a-frame-large",
}
TEXT_DEFAULTS = {"dim": 768, "name": "t5-base", "max_length": 512, "pad_mode": "longest"}
VISION_DEFAULTS = {
    "dim": 1024,
    "batch_size": 300,
    "name": "PE-Core-L14-336",
    "normalize_feature": True,
    "interpolation_mode": "BICUBIC",
    "image_size": 336,
}
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)


def load_folder(
    path: str | pathlib.Path, *, compute: Dtype = "float32"
) -> tuple[Codec, PromptedSeparator, str, dict]:
    """Codec, text encoder with separator, tokenizer name, and everything else worth keeping.

    `path` is a folder or a Hugging Face id; `compute` the dtype of the transformers' products. The
    last result holds our extras (`sam_audio_jax.json`) and, under "upstream", the config that was
    read; `save_folder` takes it back. Raises `UserError` naming every tensor that does not fit.
    """
    folder = find_folder(str(path), ("config.json", "checkpoint.*", "t5/*", "sam_audio_jax.json"))
    config = _checked_config(read_json(folder / "config.json"))
    ours = folder / "sam_audio_jax.json"
    extra = read_json(ours) if ours.exists() else {}
    state = read_state(folder, "checkpoint")
    codec_state = {
        name.removeprefix(CODEC_PREFIX): w
        for name, w in state.items()
        if name.startswith(CODEC_PREFIX)
    }
    rest = {n: w for n, w in state.items() if not n.startswith((CODEC_PREFIX, *ELSEWHERE))}
    codec_config = _codec_config(config["audio_codec"], extra.pop("latents", {}), codec_state)
    text_folder = _text_folder(folder, config["text_encoder"]["name"])
    text_config = t5_config(read_json(text_folder / "config.json"), compute)
    separator_config = _separator_config(config, compute)
    wrong: list[str] = []

    def fit(make, tensors, sizes) -> Any:
        try:
            return make(tensors, sizes)
        except (
            UserError
        ) as error:  # collected, so that one message names all three networks' misfits
            wrong.append(str(error))

    codec = fit(codec_table.codec_from_reference, codec_state, codec_config)
    separator = fit(separator_from_reference, rest, separator_config)
    encoder = fit(t5_from_reference, read_state(text_folder, "model"), text_config)
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong)}")
    prompted = nnx.eval_shape(
        lambda: PromptedSeparator(text_config, separator_config, rngs=nnx.Rngs(0))
    )
    prompted.text_encoder, prompted.separator = encoder, separator
    tokenizer = extra.pop("tokenizer", None) or _tokenizer(text_folder, config)
    return codec, prompted, tokenizer, extra | {"upstream": config}


def save_folder(
    path: str | pathlib.Path,
    codec: Codec,
    prompted: PromptedSeparator,
    tokenizer_name: str,
    extra: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes the folder beside its place and renames it; an existing one is a `UserError`.

    `dtype` is that of the files; float16 halves them. `extra` as from `load_folder`.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: give the path of a new folder")
    extra = dict(extra or {})
    upstream = extra.pop("upstream", {})
    tokenizer = pathlib.Path(tokenizer_name)
    own_tokenizer = tokenizer.is_dir()
    text_name = TEXT_DEFAULTS["name"] if own_tokenizer else tokenizer_name
    extra |= {"latents": {"mean": codec.config.mean, "std": codec.config.std}}
    extra |= {"tokenizer": None if own_tokenizer else tokenizer_name}
    state = {CODEC_PREFIX + n: w for n, w in codec_table.codec_to_reference(codec).items()}
    state |= separator_to_reference(prompted.separator)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        new = pathlib.Path(place) / "new"
        (new / "t5").mkdir(parents=True)
        config = upstream_config(codec.config, prompted, text_name, upstream)
        write_json(new / "config.json", config)
        write_json(new / "sam_audio_jax.json", extra)
        write_state(new / "checkpoint.safetensors", state, dtype)
        encoder = prompted.text_encoder
        write_json(new / "t5" / "config.json", t5_config_to_reference(encoder.config))
        write_state(new / "t5" / "model.safetensors", t5_to_reference(encoder), dtype)
        for name in TOKENIZER_FILES if own_tokenizer else ():
            if (tokenizer / name).exists():
                shutil.copy(tokenizer / name, new / "t5" / name)
        new.rename(path)


def upstream_config(
    codec: CodecConfig, prompted: PromptedSeparator, text_name: str, known: Mapping[str, Any]
) -> dict[str, Any]:
    """`config.json`; `known` is a config that was read, whose other settings are kept."""
    separator = prompted.separator.config
    parts = {key: dict(known.get(key) or {}) for key in ("audio_codec", "transformer")}
    codec_part = {name: getattr(codec, name) for name in CODEC_FIELDS}
    codec_part |= {"encoder_rates": list(codec.encoder_rates)}
    codec_part |= {"decoder_rates": list(codec.decoder_rates)}
    text = TEXT_DEFAULTS | {"name": text_name} | dict(known.get("text_encoder") or {})
    vision = VISION_DEFAULTS | dict(known.get("vision_encoder") or {})
    ours = {
        "in_channels": 6 * separator.channels,
        "audio_codec": {**CODEC_UNUSED, "mean": 0.0, "std": 1.0, **parts["audio_codec"]}
        | codec_part,
        "text_encoder": text | {"dim": separator.text_width},
        "vision_encoder": vision | {"dim": separator.video_width},
        "transformer": dit_to_reference(
            separator.dit, 2 * separator.channels, parts["transformer"]
        ),
        "num_anchors": separator.anchors,
        "anchor_embedding_dim": separator.anchor_width,
    }
    return {**TOP_DEFAULTS, "span_predictor": None, **known, **ours}


def _checked_config(config: dict) -> dict:
    """Defaults filled in; unknown keys are errors, as upstream."""
    unknown = sorted(set(config) - set(TOP_DEFAULTS))
    if unknown:
        raise UserError(
            f"config.json: unknown key {unknown[0]}, allowed are {', '.join(TOP_DEFAULTS)}"
        )
    full = TOP_DEFAULTS | config
    full["text_encoder"] = TEXT_DEFAULTS | full["text_encoder"]
    full["vision_encoder"] = VISION_DEFAULTS | full["vision_encoder"]
    return full


def _codec_config(values: dict, latents: dict, state: dict[str, np.ndarray]) -> CodecConfig:
    """Upstream stores mean and std but never uses them, so only our own file's are taken."""
    unknown = sorted(set(values) - {*CODEC_FIELDS, *CODEC_UNUSED, "mean", "std"})
    if unknown:
        raise UserError(
            f"config.json: unknown key audio_codec.{unknown[0]}, allowed are "
            + ", ".join((*CODEC_FIELDS, *CODEC_UNUSED))
        )
    fields = {
        name: tuple(v) if isinstance(v := values[name], list) else v
        for name in CODEC_FIELDS
        if name in values
    }
    depth = len(fields.get("decoder_rates", CodecConfig().decoder_rates))
    return CodecConfig(**fields, **latents, **codec_table.watermark_settings(state, depth))


def _separator_config(config: dict, compute: Dtype) -> SeparatorConfig:
    if config["in_channels"] % 6:
        raise UserError(f"config.json: in_channels={config['in_channels']} must be a multiple of 6")
    channels = config["in_channels"] // 6
    out = config["transformer"].get("out_channels", 256)
    if out != 2 * channels:
        raise UserError(
            f"config.json: transformer.out_channels={out} must be a third of "
            f"in_channels={config['in_channels']}"
        )
    return SeparatorConfig(
        dit=dit_from_reference(config["transformer"], compute),
        channels=channels,
        text_width=config["text_encoder"]["dim"],
        video_width=config["vision_encoder"]["dim"],
        anchors=config["num_anchors"],
        anchor_width=config["anchor_embedding_dim"],
    )


def _text_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    if (folder / "t5").is_dir():
        return folder / "t5"
    return find_folder(name, ("config.json", "model.safetensors", *TOKENIZER_FILES))


def _tokenizer(text_folder: pathlib.Path, config: dict) -> str:
    """The text encoder's folder when it has tokenizer files, else the name in the config."""
    if any((text_folder / name).exists() for name in TOKENIZER_FILES):
        return str(text_folder)
    return config["text_encoder"]["name"]
