"""A model folder in the upstream layout: read, and written whole or not at all (docs/model.md).

    config.json                   upstream's keys
    checkpoint.safetensors | .pt  tensors under upstream's names: codec, separator, vision tower
    t5/                           config.json, model.safetensors [, tokenizer files]: text encoder
    sam_audio_jax.json            ours: tokenizer, latent mean and std, sampler defaults, notes

An official folder has neither of the last two: its text encoder is the `t5-base` of config.json.
Tensors of other networks (vision tower, rankers, span predictor) stay in their file until a folder
is written, which then holds them as well.
"""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.convert.codec import codec_table, watermark_settings
from sam_audio_jax.convert.files import find_folder, open_state, read_json, write_json
from sam_audio_jax.convert.names import Table
from sam_audio_jax.convert.separator import separator_table
from sam_audio_jax.convert.t5 import encoder_only, t5_config, t5_config_to_reference, t5_table
from sam_audio_jax.convert.tensors import State, Tensor, write_state
from sam_audio_jax.convert.upstream_config import (
    TEXT_DEFAULTS,
    Dtype,
    checked_config,
    codec_config,
    separator_config,
    upstream_config,
)
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator, Separator, SeparatorConfig

FileDtype = Literal["float32", "float16"]
CODEC_PREFIX = "audio_codec."
TOWER_PREFIX = "vision_encoder."
ELSEWHERE = (
    TOWER_PREFIX,
    "text_encoder.",
    "visual_ranker.",
    "text_ranker.",
    "span_predictor.",
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "spiece.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A folder of which settings and headers were read: every tensor is there and fits."""

    stored_config: dict[str, Any]  # of upstream, as it is
    config: dict[str, Any]  # with defaults filled in
    extra: dict[str, Any]  # ours, without latents and tokenizer
    latents: dict[str, float]
    tokenizer: str
    text_config: dict[str, Any]
    text_state: State
    state: State  # all of the checkpoint
    codec: Table[Codec]
    encoder: Table[T5Encoder]
    separator: Table[Separator]
    text_sizes: T5Config
    separator_sizes: SeparatorConfig

    def part(self, *prefixes: str) -> dict[str, Tensor]:
        """Tensors of the checkpoint with one of these prefixes; without any, the separator's."""
        if not prefixes:
            other = (CODEC_PREFIX, *ELSEWHERE)
            return {name: w for name, w in self.state.items() if not name.startswith(other)}
        return {name: w for name, w in self.state.items() if name.startswith(prefixes)}

    def misfits(self) -> list[str]:
        return [
            *self.codec.misfits(self.part(CODEC_PREFIX)),
            *self.separator.misfits(self.part()),
            *(f"t5: {wrong}" for wrong in self.encoder.misfits(encoder_only(self.text_state))),
        ]


def open_folder(path: str | pathlib.Path, *, compute: Dtype = "float32") -> Opened:
    """Settings and headers of a folder or Hugging Face id; no tensor is read.

    UserError: nothing there, or something does not fit; one line names every such tensor.
    """
    folder = find_folder(str(path), ("config.json", "checkpoint.*", "t5/*", "sam_audio_jax.json"))
    stored_config = read_json(folder / "config.json")
    config = checked_config(stored_config)
    ours = folder / "sam_audio_jax.json"
    extra = read_json(ours) if ours.exists() else {}
    state = open_state(folder, "checkpoint")
    latents = extra.pop("latents", {})
    depth = len(config["audio_codec"].get("decoder_rates", CodecConfig().decoder_rates))
    bare = {name.removeprefix(CODEC_PREFIX): w for name, w in state.items()}
    codec_sizes = codec_config(config["audio_codec"], latents, watermark_settings(bare, depth))
    text_folder = _text_folder(folder, config["text_encoder"]["name"])
    text_config = read_json(text_folder / "config.json")
    text_sizes = t5_config(text_config, compute)
    separator_sizes = separator_config(config, compute)
    text_state = open_state(text_folder, "model")
    opened = Opened(
        stored_config=stored_config,
        config=config,
        extra=extra,
        latents=latents,
        tokenizer=extra.pop("tokenizer", None) or _tokenizer(text_folder, config),
        text_config=text_config,
        text_state=text_state if text_folder == folder / "t5" else encoder_only(text_state),
        state=state,
        codec=codec_table(codec_sizes, CODEC_PREFIX),
        encoder=t5_table(text_sizes),
        separator=separator_table(separator_sizes),
        text_sizes=text_sizes,
        separator_sizes=separator_sizes,
    )
    if wrong := opened.misfits():
        raise UserError(f"{folder} does not fit its config: {'; '.join(wrong)}")
    return opened


def load_folder(
    path: str | pathlib.Path, *, compute: Dtype = "float32", mesh: Mesh | None = None
) -> tuple[Codec, PromptedSeparator, str, dict]:
    """Codec, text encoder with separator, tokenizer name, and everything else worth keeping.

    `path` is a folder or a Hugging Face id; `compute` the dtype of the transformers' products; with
    a mesh every parameter is born in its places. The last result holds our extras
    (`sam_audio_jax.json`) and what was read but not used: under "upstream" the config, under "rest"
    the tensors, still in their file. `save_folder` takes it back. Raises as `open_folder`.
    """
    opened = open_folder(path, compute=compute)
    codec = opened.codec.read(opened.part(CODEC_PREFIX), mesh)
    prompted = nnx.eval_shape(
        lambda: PromptedSeparator(opened.text_sizes, opened.separator_sizes, rngs=nnx.Rngs(0))
    )
    prompted.text_encoder = opened.encoder.read(opened.text_state, mesh)
    prompted.separator = opened.separator.read(opened.part(), mesh)
    unused = {"upstream": opened.config, "rest": opened.part(*ELSEWHERE)}
    return codec, prompted, opened.tokenizer, opened.extra | unused


def save_folder(
    path: str | pathlib.Path,
    codec: Codec,
    prompted: PromptedSeparator,
    tokenizer_name: str,
    extra: Mapping[str, Any] | None = None,
    *,
    dtype: FileDtype | None = None,
    fold: bool = False,
    tower: str | pathlib.Path | None = None,
) -> bool:
    """Writes the folder beside its place and renames it; an existing one is a `UserError`.

    `dtype` is that of the files (float16 halves them); None keeps what everything has. `extra` as
    from `load_folder`. `fold` moves the latents' mean and std into the codec, whose results
    upstream's code then shares. `tower` is another folder, whose vision tower is put in. The result
    says whether there is one, without which upstream's code does not load the folder.
    """
    extra = dict(extra or {})
    upstream, rest = extra.pop("upstream", {}), extra.pop("rest", {})
    mean, std = codec.config.mean, codec.config.std
    state = dict(codec_table(codec.config, CODEC_PREFIX).stored(codec))
    text_name = TEXT_DEFAULTS["name"] if pathlib.Path(tokenizer_name).is_dir() else tokenizer_name
    encoder, separator = prompted.text_encoder, prompted.separator
    return _write_folder(
        pathlib.Path(path),
        config=upstream_config(codec.config, prompted, text_name, upstream),
        extra=extra,
        state=state | separator_table(separator.config).stored(separator) | dict(rest),
        latents={"mean": mean, "std": std},
        text_config=t5_config_to_reference(encoder.config),
        text_state=t5_table(encoder.config).stored(encoder),
        tokenizer=tokenizer_name,
        dtype=dtype,
        fold=fold,
        tower=tower,
    )


def copy_folder(
    source: str | pathlib.Path,
    path: str | pathlib.Path,
    *,
    dtype: FileDtype | None = None,
    fold: bool = False,
    tower: str | pathlib.Path | None = None,
) -> bool:
    """From a folder or Hugging Face id to a folder of its own with the same tensors, bit by bit.

    One tensor is held at a time; all are checked first. The rest as `save_folder`.
    """
    opened = open_folder(source)
    return _write_folder(
        pathlib.Path(path),
        config=opened.stored_config,
        extra=opened.extra,
        state=opened.state,
        latents={"mean": 0.0, "std": 1.0} | opened.latents,
        text_config=opened.text_config,
        text_state=opened.text_state,
        tokenizer=opened.tokenizer,
        dtype=dtype,
        fold=fold,
        tower=tower,
    )


def _write_folder(
    path: pathlib.Path,
    *,
    config: Mapping[str, Any],
    extra: Mapping[str, Any],
    state: State,
    latents: Mapping[str, float],
    text_config: Mapping[str, Any],
    text_state: State,
    tokenizer: str,
    dtype: FileDtype | None,
    fold: bool,
    tower: str | pathlib.Path | None,
) -> bool:
    if path.exists():
        raise UserError(f"{path} exists already: give the path of a new folder")
    own_tokenizer = pathlib.Path(tokenizer).is_dir()
    unscaled = {"mean": 0.0, "std": 1.0}
    if fold and latents != unscaled:
        state, latents = dict(state) | folded_scale(state, **latents), unscaled
    if tower is not None:
        config, state = _with_tower(config, state, open_folder(tower))
    ours = {"latents": dict(latents), "tokenizer": None if own_tokenizer else tokenizer}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        new = pathlib.Path(place) / "new"
        (new / "t5").mkdir(parents=True)
        write_json(new / "config.json", config)
        write_json(new / "sam_audio_jax.json", dict(extra) | ours)
        write_state(new / "checkpoint.safetensors", state, dtype)
        write_json(new / "t5" / "config.json", text_config)
        write_state(new / "t5" / "model.safetensors", text_state, dtype)
        for name in TOKENIZER_FILES if own_tokenizer else ():
            if (pathlib.Path(tokenizer) / name).exists():
                shutil.copy(pathlib.Path(tokenizer) / name, new / "t5" / name)
        new.rename(path)
    return any(name.startswith(TOWER_PREFIX) for name in state)


def _with_tower(
    config: Mapping[str, Any], state: State, other: Opened
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors with the vision tower of another folder."""
    found, settings = other.part(TOWER_PREFIX), other.config["vision_encoder"]
    if not found:
        raise UserError("the folder that was named for its vision tower has none")
    width = checked_config(dict(config))["vision_encoder"]["dim"]
    if settings["dim"] != width:
        raise UserError(
            f"a vision tower of {settings['dim']} features does not fit a separator for {width}"
        )
    own = {name: w for name, w in state.items() if not name.startswith(TOWER_PREFIX)}
    return dict(config) | {"vision_encoder": settings}, own | found


def folded_scale(state: State, mean: float, std: float) -> dict[str, np.ndarray]:
    """The bottleneck's tensors that make `(z - mean) / std` the latents of an unscaled codec."""
    into, out = (f"{CODEC_PREFIX}quantizer.{name}" for name in ("in_proj", "out_proj"))
    names = (f"{into}.weight_g", f"{into}.bias")
    names += (f"{out}.weight_g", f"{out}.weight_v", f"{out}.bias")
    gain_in, bias_in, gain, direction, bias = (np.asarray(state[n], np.float32) for n in names)
    is_mean = np.arange(len(bias_in)) < len(bias_in) // 2
    length = np.sqrt(np.square(direction).sum(axis=(1, 2), keepdims=True))
    shift = mean * (gain * direction / length).sum(axis=(1, 2))
    folded = {
        f"{into}.weight_g": gain_in / np.where(is_mean, std, 1)[:, None, None],
        f"{into}.bias": np.where(is_mean, (bias_in - mean) / std, bias_in),
        f"{out}.weight_g": gain * std,
        f"{out}.bias": bias + shift,
    }
    return {name: values.astype(state[name].dtype) for name, values in folded.items()}


def _text_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    if (folder / "t5").is_dir():
        return folder / "t5"
    return find_folder(name, ("config.json", "model*.safetensors*", *TOKENIZER_FILES))


def _tokenizer(text_folder: pathlib.Path, config: dict) -> str:
    """The text encoder's folder when it has tokenizer files, else the name in the config."""
    if any((text_folder / name).exists() for name in TOKENIZER_FILES):
        return str(text_folder)
    return config["text_encoder"]["name"]
