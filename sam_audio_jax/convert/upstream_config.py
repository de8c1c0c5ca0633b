"""Upstream's `config.json` as a whole: defaults, and how it is written.

docs/model.md, "Configuration file", lists its keys. The sections that describe networks are read
and written beside the tables of their tensors.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.codec import codec_config_to_reference
from sam_audio_jax.convert.separator import dit_to_reference
from sam_audio_jax.encoders.tokenizer import MAX_TOKENS
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.separator.model import SeparatorConfig

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
TEXT_DEFAULTS = {"dim": 768, "name": "t5-base", "max_length": MAX_TOKENS, "pad_mode": "longest"}
# Keys of other folders of this project, and what such a folder is.
OTHER_FOLDERS = {
    "finetune_transformer": "a judge, which scores separations (--scorers, --ranker judge=FOLDER)",
    "audio_tower": "an audio tower, a part of a model",
}
VISION_DEFAULTS = {
    "dim": 1024,
    "batch_size": 300,
    "name": "PE-Core-L14-336",
    "normalize_feature": True,
    "interpolation_mode": "BICUBIC",
    "image_size": 336,
}


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with defaults filled in.

    Raises `UserError` for unknown keys, as upstream, and for another length of texts than ours.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"config.json must hold an object, not {shown(config)}")
    unknown = sorted(set(config) - set(TOP_DEFAULTS))
    for key in unknown:
        if key in OTHER_FOLDERS:
            raise UserError(f"config.json is not that of a separator: it is {OTHER_FOLDERS[key]}")
    if unknown:
        raise UserError(
            f"config.json: unknown key {unknown[0]}, allowed are {', '.join(TOP_DEFAULTS)}"
        )
    full = TOP_DEFAULTS | dict(config)
    for key, default in TOP_DEFAULTS.items():
        if isinstance(default, dict) and not isinstance(full[key], Mapping):
            raise UserError(f"config.json: {key} must be an object, not {shown(full[key])}")
    for section, defaults in (("text_encoder", TEXT_DEFAULTS), ("vision_encoder", VISION_DEFAULTS)):
        if unknown := sorted(set(full[section]) - set(defaults)):
            raise UserError(
                f"config.json: unknown key {section}.{unknown[0]}, "
                f"allowed are {', '.join(defaults)}"
            )
        full[section] = defaults | full[section]
    if (length := full["text_encoder"]["max_length"]) != MAX_TOKENS:
        raise UserError(
            f"config.json: text_encoder.max_length={shown(length)} is not supported, "
            f"only {MAX_TOKENS}"
        )
    return full


def ranker_checkpoints(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the names of the rankers' checkpoints, also of those in ensembles."""
    waiting = [config.get("text_ranker"), config.get("visual_ranker")]
    while waiting:
        match waiting.pop():
            case {"kind": "ensemble", "rankers": dict(members)}:
                waiting += [member[0] for member in members.values() if isinstance(member, list)]
            case {"checkpoint": str(name)} | {"checkpoint_or_model_id": str(name)} if name:
                yield name


def upstream_config(
    codec: CodecConfig, separator: SeparatorConfig, text_name: str, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The `config.json` of these networks; `known` is one whose other settings are kept."""
    sections = {
        key: dict(known.get(key) or {})
        for key in ("audio_codec", "transformer", "text_encoder", "vision_encoder")
    }
    text = TEXT_DEFAULTS | {"name": text_name} | sections["text_encoder"]
    vision = VISION_DEFAULTS | sections["vision_encoder"]
    channels = 2 * separator.channels  # of the velocity: those of target and residual
    ours = {
        "in_channels": 3 * channels,
        "audio_codec": codec_config_to_reference(codec, sections["audio_codec"]),
        "text_encoder": text | {"dim": separator.text_width},
        "vision_encoder": vision | {"dim": separator.video_width},
        "transformer": dit_to_reference(separator.dit, channels, sections["transformer"]),
        "num_anchors": separator.anchors,
        "anchor_embedding_dim": separator.anchor_width,
    }
    return {**TOP_DEFAULTS, "span_predictor": None, **known, **ours}
