"""A model folder in the upstream layout: read, and written whole or not at all (docs/model.md).

    config.json                   upstream's keys
    checkpoint.safetensors | .pt  tensors under upstream's names: codec, separator, vision tower
    t5/                           config.json, model.safetensors [, tokenizer files]: text encoder
    audio_tower/                  of a model with prompts by example (convert/audio_tower.py)
    sam_audio_jax.json            ours: format, tokenizer, mean and std of latents, sampler, notes,
                                  level_db: level to which recordings are brought; absent or null:
                                  they stay as recorded, as in the published evaluations;
                                  normalizes_text: whether texts are brought to the form of our
                                  training data (encoders/text_form.py) or read as they are;
                                  known: the sounds it has learned (infer/known_sounds.py);
                                  refine: how its stems become a mask (infer/refine.py);
                                  ignored_spans: tokens of spans that its training did not have;
                                  vision: sizes of its vision tower; absent: the released one's

An official folder has none of the last three: its text encoder is the `t5-base` of config.json.
Tensors of other networks (vision tower, rankers, span predictor) stay in their file until a folder
is written, which then holds them as well.
"""

import dataclasses
import functools
import pathlib
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict, get_type_hints

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.audio import USUAL_DB
from sam_audio_jax.bounds import Decibels, check
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.codec.folded import folded
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert import audio_tower
from sam_audio_jax.convert.audio_tower import StoredAudioTower, open_audio_tower
from sam_audio_jax.convert.codec import codec_config, codec_table
from sam_audio_jax.convert.model_files import (
    TOKENIZER_FILES,
    copy_tokenizer,
    find_folder,
    has_tokenizer,
    open_state,
    reading,
    weight_files,
)
from sam_audio_jax.convert.names import StoredNetwork
from sam_audio_jax.convert.separator import STEP_SIZE, separator_config, separator_table
from sam_audio_jax.convert.t5 import encoder_only, t5_config, t5_config_to_reference, t5_table
from sam_audio_jax.convert.tensors import State, Tensor, write_state
from sam_audio_jax.convert.upstream_config import (
    TEXT_DEFAULTS,
    ranker_checkpoints,
    upstream_config,
    with_defaults,
)
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import check_format, read_object, whole_folder, write_json
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Compute, Storage, compute_of
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator, Separator, SeparatorConfig

TOKENIZER_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
OURS = "sam_audio_jax.json"
FORMAT = 1  # of OURS
FileDtype = Literal["float32", "float16"]
PATTERNS = ("config.json", *weight_files("checkpoint"), "t5/*", f"{audio_tower.FOLDER}/*", OURS)
TEXT_PATTERNS = ("config.json", *weight_files("model"), *TOKENIZER_FILES)
CODEC_PREFIX = "audio_codec."
TOWER_PREFIX = "vision_encoder."
TOWER_SIZES = "vision"  # of OURS: sizes of a vision tower that is not the released one
VIDEO_GATE = "align_masked_video.gate"  # of the separator: 0 until it is trained on videos
OTHER_PREFIXES = (  # of networks that a folder may hold and that are not read with it
    TOWER_PREFIX,
    "text_encoder.",
    "visual_ranker.",
    "text_ranker.",
    "span_predictor.",
)
UNSCALED = {"mean": 0.0, "std": 1.0}


class OwnSettings(TypedDict):
    """Values of OURS that every reader checks; what `known` and `refine` hold, `infer` knows."""

    level_db: Decibels | None
    normalizes_text: bool
    ignored_spans: tuple[Literal["+", "-"], ...]
    known: dict
    refine: dict
    vision: dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything that is written into a model folder; tensors may still be elsewhere."""

    config: Mapping[str, Any]  # upstream's
    extra: Mapping[str, Any]  # other values of sam_audio_jax.json
    latents: Mapping[str, float]  # mean and std
    tokenizer: str  # a name, or a folder with its files
    state: State  # of codec, separator and other networks
    text_config: Mapping[str, Any]
    text_state: State
    audio_tower: StoredAudioTower | None = None
    folder: pathlib.Path | None = None  # in which the config's rankers may be


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder whose configs and headers were read: every tensor is there and fits."""

    contents: Contents
    path: pathlib.Path
    config: dict[str, Any]  # upstream's, with defaults filled in
    codec: StoredNetwork[Codec]
    text_encoder: StoredNetwork[T5Encoder]
    separator: StoredNetwork[Separator]
    others: State  # tensors of other networks


def open_folder(path: str | pathlib.Path, *, compute: Compute = "float32") -> ModelFolder:
    """Reads configs and headers of a folder or Hugging Face id, but no tensor.

    Raises `UserError` when there is none, or with one line that names every tensor that does not
    fit.
    """
    folder = find_folder(str(path), PATTERNS)
    with reading(folder):
        return _open(folder, compute)


def _open(folder: pathlib.Path, compute: Compute) -> ModelFolder:
    stored_config, extra = read_object(folder / "config.json"), {}
    if (folder / OURS).exists():
        extra = read_object(folder / OURS)
        check_format(folder / OURS, extra, FORMAT)
    in_files = "tokenizer" in extra and extra["tokenizer"] is None
    latents, tokenizer = extra.pop("latents", {}), extra.pop("tokenizer", None)
    extra.pop("format", None)
    _check_ours(folder / OURS, latents, tokenizer, extra)
    if "trained" in extra:  # folders of our trainings did not always say so
        extra.setdefault("level_db", USUAL_DB)
        extra.setdefault("normalizes_text", True)
    config = with_defaults(stored_config)
    text_name = config["text_encoder"]["name"]
    own_text = (folder / "t5").is_dir()
    text_folder = folder / "t5" if own_text else find_folder(text_name, TEXT_PATTERNS)
    text_config = read_object(text_folder / "config.json")
    state, text_state = open_state(folder, "checkpoint"), open_state(text_folder, "model")
    if in_files and own_text and not has_tokenizer(text_folder):
        raise UserError(f"{text_folder} lacks the files of its tokenizer ({TOKENIZER_FILES[0]})")
    if not tokenizer:
        tokenizer = str(text_folder) if has_tokenizer(text_folder) else text_name

    codec_state, separator_state, others = _split(state)
    codec_sizes = codec_config(config["audio_codec"], codec_state, latents, CODEC_PREFIX)
    codec = StoredNetwork(codec_table(codec_sizes, CODEC_PREFIX), codec_state)
    text_table = t5_table(t5_config(text_config, compute))
    text_encoder = StoredNetwork(text_table, encoder_only(text_state))
    separator = StoredNetwork(separator_table(separator_config(config, compute)), separator_state)
    misfits = codec.misfits() + separator.misfits()
    misfits += [f"t5: {misfit}" for misfit in text_encoder.misfits()]
    if misfits:
        raise UserError(f"{folder} does not fit its config: {'; '.join(misfits)}")
    contents = Contents(
        config=stored_config,
        extra=extra,
        latents=UNSCALED | latents,
        tokenizer=tokenizer,
        state=state,
        text_config=text_config,
        text_state=text_state if own_text else text_encoder.state,
        audio_tower=_audio_tower(folder),
        folder=folder,
    )
    return ModelFolder(
        contents=contents,
        path=folder,
        config=config,
        codec=codec,
        text_encoder=text_encoder,
        separator=separator,
        others=others,
    )


def _audio_tower(folder: pathlib.Path) -> StoredAudioTower | None:
    own = folder / audio_tower.FOLDER
    return open_audio_tower(own) if own.is_dir() else None


def _check_ours(path: pathlib.Path, latents: Any, tokenizer: Any, extra: Mapping[str, Any]) -> None:
    """Raises `UserError` for values of sam_audio_jax.json that mean nothing."""
    if not isinstance(latents, dict) or set(latents) - set(UNSCALED):
        raise UserError(f"{path}: latents must have mean and std alone, not {shown(latents)}")
    if tokenizer is not None and not (
        isinstance(tokenizer, str) and TOKENIZER_NAME.fullmatch(tokenizer)
    ):
        raise UserError(f"{path}: tokenizer {shown(tokenizer)} must be a name or Hugging Face id")
    sampler = extra.get("sampler", {})
    if not isinstance(sampler, dict):
        raise UserError(f"{path}: sampler must be an object, not {shown(sampler)}")
    from_dict(SamplerConfig, sampler, where="sampler.")
    for name, hint in get_type_hints(OwnSettings, include_extras=True).items():
        if name in extra:
            check(hint, extra[name], f"{path}: {name}")


def load_folder(
    path: str | pathlib.Path,
    *,
    compute: Compute | None = None,
    mesh: Mesh | None = None,
    storage: Storage = "float32",
    folds: bool = False,
) -> tuple[Codec, PromptedSeparator, str, dict[str, Any]]:
    """Reads codec, text encoder with separator, tokenizer name, and everything else worth keeping.

    `path` is a folder or a Hugging Face id; `compute` the dtype of the transformers' products
    (default: that of `storage`, the form of their matrices); the codec is float32, and with `folds`
    it is folded before anything else is read, which bounds the memory of loading. With a mesh every
    parameter is sharded while it is read. The last result holds the other values of
    `sam_audio_jax.json`, under "upstream" the config, under "rest" the tensors that were not read,
    still in their file, under "audio_tower" the tower, if there is one, unread too, and under
    "folder" where all of it is. `save_folder` takes it back. Raises as `open_folder`.
    """
    folder = open_folder(path, compute=compute or compute_of(storage))
    text, sizes = folder.text_encoder.table.abstract.config, folder.separator.table.abstract.config
    prompted = abstract_prompted(text, sizes)
    codec = folder.codec.read(mesh)
    if folds:
        folded(codec)
    prompted.text_encoder = folder.text_encoder.read(mesh, storage)
    prompted.separator = folder.separator.read(mesh, storage)
    return codec, prompted, folder.contents.tokenizer, extras_of(folder)


def abstract_prompted(text: T5Config, sizes: SeparatorConfig) -> PromptedSeparator:
    """Text encoder and separator without values, others each time."""
    return nnx.merge(*_traced_prompted(text, sizes), copy=True)


@functools.lru_cache(maxsize=16)
def _traced_prompted(text: T5Config, sizes: SeparatorConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: PromptedSeparator(text, sizes, rngs=Rngs(0))))


def extras_of(folder: ModelFolder) -> dict[str, Any]:
    """The last result of `load_folder`: what is worth keeping besides the networks, unread."""
    unread: dict[str, Any] = {"upstream": folder.config, "rest": folder.others}
    unread["folder"] = folder.path
    if folder.contents.audio_tower is not None:
        unread["audio_tower"] = folder.contents.audio_tower
    return dict(folder.contents.extra) | unread


def with_known_texts(extra: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The extras of a model that has learned more texts, by a training or an adapter.

    A model that does not say which it knows goes on to say nothing. A `known` that means nothing is
    left to what reads it.
    """
    known = extra.get("known")
    if not isinstance(known, dict) or not isinstance(known.get("texts"), list):
        return dict(extra)
    more = [text for text in dict.fromkeys(texts) if text not in known["texts"]]
    return {**extra, "known": {**known, "texts": [*known["texts"], *more]}}


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
    """Writes a new folder, whole or not at all; returns whether it holds a vision tower.

    Without a tower upstream's code does not load the folder; `tower` is another folder whose tower
    is put in. `dtype` is that of the files (float16 halves them); None keeps what each tensor has.
    `extra` is as from `load_folder`. `fold` moves the latents' mean and std into the weights of the
    codec, because upstream's code does not apply them. Raises `UserError` when `path` exists, when
    the tower does not fit, and for values too large for `dtype`.
    """
    extra = dict(extra or {})
    upstream, others = extra.pop("upstream", {}), extra.pop("rest", {})
    folder, tower_of_examples = extra.pop("folder", None), extra.pop("audio_tower", None)
    text_encoder, separator = prompted.text_encoder, prompted.separator
    text_name = TEXT_DEFAULTS["name"] if pathlib.Path(tokenizer_name).is_dir() else tokenizer_name
    state = codec_table(codec.config, CODEC_PREFIX).stored(codec)
    state |= separator_table(separator.config).stored(separator)
    contents = Contents(
        config=upstream_config(codec.config, separator.config, text_name, upstream),
        extra=extra,
        latents={"mean": codec.config.mean, "std": codec.config.std},
        tokenizer=tokenizer_name,
        state=state | dict(others),
        text_config=t5_config_to_reference(text_encoder.config),
        text_state=t5_table(text_encoder.config).stored(text_encoder),
        audio_tower=tower_of_examples,
        folder=folder,
    )
    return _write_folder(pathlib.Path(path), contents, dtype=dtype, fold=fold, tower=tower)


def copy_folder(
    source: str | pathlib.Path,
    path: str | pathlib.Path,
    *,
    dtype: FileDtype | None = None,
    fold: bool = False,
    tower: str | pathlib.Path | None = None,
) -> bool:
    """Copies a folder or Hugging Face id into a new folder with the same tensors, bit by bit.

    All tensors are checked first, then one is held at a time. The rest is as in `save_folder`.
    """
    contents = open_folder(source).contents
    return _write_folder(pathlib.Path(path), contents, dtype=dtype, fold=fold, tower=tower)


def _write_folder(
    path: pathlib.Path,
    contents: Contents,
    *,
    dtype: FileDtype | None,
    fold: bool,
    tower: str | pathlib.Path | None,
) -> bool:
    with whole_folder(path) as part:
        if fold:
            contents = _folded(contents)
        if tower is not None:
            contents = _with_tower(contents, open_folder(tower), export=fold)
        tokenizer_folder = pathlib.Path(contents.tokenizer)
        has_files = tokenizer_folder.is_dir()
        ours = {
            "format": FORMAT,
            "latents": dict(contents.latents),
            "tokenizer": None if has_files else contents.tokenizer,
        }
        write_json(part / "config.json", contents.config)
        write_json(part / OURS, dict(contents.extra) | ours)
        write_state(part / "checkpoint.safetensors", contents.state, dtype)
        write_json(part / "t5" / "config.json", contents.text_config)
        write_state(part / "t5" / "model.safetensors", contents.text_state, dtype)
        if has_files:
            copy_tokenizer(tokenizer_folder, part / "t5")
        if contents.audio_tower is not None:
            contents.audio_tower.write(part / audio_tower.FOLDER, dtype)
        if contents.folder is not None:
            _copy_rankers(contents.config, contents.folder, part)
    return any(name.startswith(TOWER_PREFIX) for name in contents.state)


def _copy_rankers(config: Mapping[str, Any], folder: pathlib.Path, part: pathlib.Path) -> None:
    """Copies the rankers that a config names and that are in the model's own folder."""
    for name in ranker_checkpoints(config):
        path, target = pathlib.PurePath(name), part / name
        if path.is_absolute() or ".." in path.parts or target.exists():
            continue
        if (folder / name).is_dir():
            shutil.copytree(folder / name, target)
        elif (folder / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, target)


def _split(state: State) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the codec, of the separator, and of other networks, under their full names."""
    codec, separator, others = {}, {}, {}
    for name, tensor in state.items():
        if name.startswith(CODEC_PREFIX):
            codec[name] = tensor
        elif name.startswith(OTHER_PREFIXES):
            others[name] = tensor
        else:
            separator[name] = tensor
    return codec, separator, others


def reads_video(state: State) -> bool:
    """Whether the separator of a checkpoint was trained on videos; else it ignores them."""
    return bool(np.any(np.asarray(state[VIDEO_GATE])))


def _with_tower(contents: Contents, other: ModelFolder, *, export: bool) -> Contents:
    """The contents with the vision tower of another folder.

    Upstream's code needs one, so only an `export` may have one that its separator ignores.
    """
    if not export and not reads_video(contents.state):
        raise UserError(
            f"this model was never trained on videos ({VIDEO_GATE} is 0): it would ignore what a "
            "vision tower sees"
        )
    settings = other.config["vision_encoder"]
    tower = {name: t for name, t in other.others.items() if name.startswith(TOWER_PREFIX)}
    if not tower:
        raise UserError("the folder that was named for its vision tower has none")
    width = with_defaults(contents.config)["vision_encoder"]["dim"]
    if settings["dim"] != width:
        raise UserError(
            f"a vision tower of {settings['dim']} features does not fit a separator for {width}"
        )
    rest = {name: t for name, t in contents.state.items() if not name.startswith(TOWER_PREFIX)}
    config = dict(contents.config) | {"vision_encoder": settings}
    extra = {name: value for name, value in contents.extra.items() if name != TOWER_SIZES}
    if TOWER_SIZES in other.contents.extra:
        extra[TOWER_SIZES] = other.contents.extra[TOWER_SIZES]
    return dataclasses.replace(contents, config=config, extra=extra, state=rest | tower)


def _folded(contents: Contents) -> Contents:
    """The contents with a codec whose latents need no scale.

    The weights of its bottleneck are changed so that `(z - mean) / std` are its latents. Raises
    `UserError` for a model that upstream's code cannot run.
    """
    if contents.config.get("transformer", {}).get(STEP_SIZE):
        raise UserError(
            "this model has an embedding of the step size, which upstream's code does not have"
        )
    if contents.latents == UNSCALED:
        return contents
    state, mean, std = contents.state, contents.latents["mean"], contents.latents["std"]
    into, out = (f"{CODEC_PREFIX}quantizer.{name}" for name in ("in_proj", "out_proj"))
    names = [f"{into}.weight_g", f"{into}.bias"]
    names += [f"{out}.weight_g", f"{out}.weight_v", f"{out}.bias"]
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
    folded = {name: values.astype(state[name].dtype) for name, values in folded.items()}
    return dataclasses.replace(contents, state=dict(state) | folded, latents=UNSCALED)
