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

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert import codec as codec_table
from sam_audio_jax.convert.files import (
    find_folder,
    read_json,
    read_state,
    write_json,
    write_state,
)
from sam_audio_jax.convert.separator import separator_from_reference, separator_to_reference
from sam_audio_jax.convert.settings import (
    TEXT_DEFAULTS,
    Dtype,
    checked_config,
    codec_config,
    separator_config,
    upstream_config,
)
from sam_audio_jax.convert.t5 import (
    t5_config,
    t5_config_to_reference,
    t5_from_reference,
    t5_to_reference,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator

CODEC_PREFIX = "audio_codec."
ELSEWHERE = (
    "vision_encoder.",
    "text_encoder.",
    "visual_ranker.",
    "text_ranker.",
    "span_predictor.",
)
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
    config = checked_config(read_json(folder / "config.json"))
    ours = folder / "sam_audio_jax.json"
    extra = read_json(ours) if ours.exists() else {}
    state = read_state(folder, "checkpoint")
    codec_state = {
        name.removeprefix(CODEC_PREFIX): w
        for name, w in state.items()
        if name.startswith(CODEC_PREFIX)
    }
    rest = {n: w for n, w in state.items() if not n.startswith((CODEC_PREFIX, *ELSEWHERE))}
    codec_sizes = codec_config(config["audio_codec"], extra.pop("latents", {}), codec_state)
    text_folder = _text_folder(folder, config["text_encoder"]["name"])
    text_sizes = t5_config(read_json(text_folder / "config.json"), compute)
    separator_sizes = separator_config(config, compute)
    wrong: list[str] = []

    def fit(make, tensors, sizes) -> Any:
        try:
            return make(tensors, sizes)
        except (
            UserError
        ) as error:  # collected, so that one message names all three networks' misfits
            wrong.append(str(error))

    codec = fit(codec_table.codec_from_reference, codec_state, codec_sizes)
    separator = fit(separator_from_reference, rest, separator_sizes)
    encoder = fit(t5_from_reference, read_state(text_folder, "model"), text_sizes)
    if wrong:
        raise UserError(f"{folder}: {'; '.join(wrong)}")
    prompted = nnx.eval_shape(
        lambda: PromptedSeparator(text_sizes, separator_sizes, rngs=nnx.Rngs(0))
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
    fold: bool = False,
) -> None:
    """Writes the folder beside its place and renames it; an existing one is a `UserError`.

    `dtype` is that of the files; float16 halves them. `extra` as from `load_folder`. `fold` moves
    the latents' mean and std into the codec, whose results upstream's code then shares.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: give the path of a new folder")
    extra = dict(extra or {})
    upstream = extra.pop("upstream", {})
    tokenizer = pathlib.Path(tokenizer_name)
    own_tokenizer = tokenizer.is_dir()
    text_name = TEXT_DEFAULTS["name"] if own_tokenizer else tokenizer_name
    mean, std = codec.config.mean, codec.config.std
    extra |= {"latents": {"mean": 0.0, "std": 1.0} if fold else {"mean": mean, "std": std}}
    extra |= {"tokenizer": None if own_tokenizer else tokenizer_name}
    codec_state = codec_table.codec_to_reference(codec)
    if fold:
        codec_state |= folded_scale(codec_state, mean, std)
    state = {CODEC_PREFIX + name: w for name, w in codec_state.items()}
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


def folded_scale(state: Mapping[str, np.ndarray], mean: float, std: float) -> dict[str, np.ndarray]:
    """The bottleneck's tensors that make `(z - mean) / std` the latents of an unscaled codec."""
    into, out = "quantizer.in_proj", "quantizer.out_proj"
    is_mean = np.arange(len(state[f"{into}.bias"])) < len(state[f"{into}.bias"]) // 2
    gain, direction = state[f"{out}.weight_g"], state[f"{out}.weight_v"]
    length = np.sqrt(np.square(direction).sum(axis=(1, 2), keepdims=True))
    shift = mean * (gain * direction / length).sum(axis=(1, 2))
    return {
        f"{into}.weight_g": state[f"{into}.weight_g"] / np.where(is_mean, std, 1)[:, None, None],
        f"{into}.bias": np.where(
            is_mean, (state[f"{into}.bias"] - mean) / std, state[f"{into}.bias"]
        ),
        f"{out}.weight_g": gain * std,
        f"{out}.bias": state[f"{out}.bias"] + shift,
    }


def _text_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    if (folder / "t5").is_dir():
        return folder / "t5"
    return find_folder(name, ("config.json", "model.safetensors", *TOKENIZER_FILES))


def _tokenizer(text_folder: pathlib.Path, config: dict) -> str:
    """The text encoder's folder when it has tokenizer files, else the name in the config."""
    if any((text_folder / name).exists() for name in TOKENIZER_FILES):
        return str(text_folder)
    return config["text_encoder"]["name"]
