"""Upstream's `config.json` to our configs and back (docs/model.md, "Configuration file")."""

from collections.abc import Mapping
from typing import Any, Literal

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.convert.separator import dit_from_reference, dit_to_reference
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig

Dtype = Literal["float32", "bfloat16"]
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


def checked_config(config: dict) -> dict:
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


def codec_config(values: dict, latents: dict, watermark: dict) -> CodecConfig:
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
    return CodecConfig(**fields, **latents, **watermark)


def separator_config(config: dict, compute: Dtype) -> SeparatorConfig:
    if config["in_channels"] % 6:
        raise UserError(f"config.json: in_channels={config['in_channels']} must be a multiple of 6")
    channels = config["in_channels"] // 6
    dit = dit_from_reference(config["transformer"], compute)
    out = config["transformer"].get("out_channels", 256)
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
