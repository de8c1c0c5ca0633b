"""Networks by name: a shipped model, a run's workdir or a step of it, a model folder, an HF id."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.folded import folded
from sam_audio_jax.convert.adapter import (
    Adapter,
    base_of_run,
    merge_adapters,
    open_adapter,
    parse_adapter,
    run_adapter,
)
from sam_audio_jax.convert.encoders import copy_encoder, open_encoder
from sam_audio_jax.convert.folder import (
    TOWER_PREFIX,
    FileDtype,
    abstract_prompted,
    copy_folder,
    extras_of,
    load_folder,
    open_folder,
    save_folder,
    with_known_texts,
)
from sam_audio_jax.convert.model_files import find_folder, has_tokenizer, shipped_folder
from sam_audio_jax.convert.t5 import encoder_only, t5_config, t5_table
from sam_audio_jax.convert.training_run import (
    abstract_run,
    load_run,
    load_run_codec,
    load_run_text_encoder,
    run_parameter_bytes,
    run_settings,
)
from sam_audio_jax.convert.upstream_config import with_defaults
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object
from sam_audio_jax.nn.storage import Storage, compute_of, stored
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.workdir import Checkpoint, find_checkpoint


def load_networks(
    name: str,
    *,
    mesh: Mesh | None = None,
    storage: Storage = "float32",
    adapters: Sequence[str] = (),
) -> tuple[Codec, PromptedSeparator, str, dict[str, Any]]:
    """Reads codec, text encoder with separator, tokenizer name and extras: see `load_folder`.

    `name` is a shipped model, a separator's workdir (its newest step), `WORKDIR/best`,
    `WORKDIR/checkpoints/STEP`, a folder in the upstream layout, or a Hugging Face id. With a mesh
    every parameter is sharded while it is read. `storage` is the form of the matrices of text
    encoder and separator. `adapters` are added to the weights, each `FOLDER` or `FOLDER:SCALE`; a
    run that trains one is its base with it. The weights are then read whole, in float32, before
    they are brought to their form. On one device another form than float32 also folds the codec.
    Raises `UserError` when there is nothing of that name, when it does not fit, and for an adapter
    of another model.
    """
    named = [parse_adapter(text) for text in adapters]
    opened = [(open_adapter(one.name), one.scale) for one in named]
    return _load(name, mesh, storage, opened)


def _load(
    name: str, mesh: Mesh | None, storage: Storage, adapters: Sequence[tuple[Adapter, float]]
) -> tuple[Codec, PromptedSeparator, str, dict[str, Any]]:
    found = _locate(name)
    if isinstance(found, Checkpoint) and (base := base_of_run(found)):
        if adapters:
            raise UserError(f"{name} trains an adapter: name its base {base}, and it as an adapter")
        codec, prompted, _, extra = _load(base, mesh, storage, [(run_adapter(found), 1.0)])
        tokenizer, own = run_settings(found)
        return codec, prompted, tokenizer, extra | own
    read_as: Storage = "float32" if adapters else storage
    folds = storage != "float32" and mesh is None
    match found:
        case Checkpoint() as checkpoint:
            networks = load_run(
                checkpoint, mesh=mesh, storage=read_as, compute=storage, folds=folds
            )
        case folder:
            compute = compute_of(storage)
            networks = load_folder(folder, mesh=mesh, storage=read_as, compute=compute, folds=folds)
    if adapters:
        prompted = networks[1]
        merge_adapters(prompted, adapters, name)
        texts = (text for adapter, _ in adapters for text in adapter.texts)
        networks = (*networks[:3], with_known_texts(networks[3], texts))
        stored(prompted.text_encoder, storage)
        stored(prompted.separator, storage)
    return networks


def load_extras(name: str) -> dict[str, Any]:
    """The last result of `load_networks`, without reading a tensor."""
    match _locate(name):
        case Checkpoint() as checkpoint:
            base = base_of_run(checkpoint)
            return (load_extras(base) if base else {}) | run_settings(checkpoint)[1]
        case folder:
            return extras_of(open_folder(folder))


def load_codec(name: str) -> Codec:
    """Reads the codec of any of `load_networks`' names, or of a codec's workdir."""
    match _locate(name):
        case Checkpoint() as checkpoint:
            return load_run_codec(checkpoint)
        case folder:
            return open_folder(folder).codec.read()


def load_text_encoder(name: str, *, mesh: Mesh | None = None) -> tuple[T5Encoder, str]:
    """Reads the text encoder of any of `load_networks`' names, or one that is alone in a folder.

    Also returns the name of its tokenizer, "" where nothing says it. With a mesh every parameter is
    sharded while it is read. Raises `UserError` when there is nothing of that name or when it does
    not fit.
    """
    match _locate(name):
        case Checkpoint() as checkpoint:
            if base := base_of_run(checkpoint):
                return load_text_encoder(base, mesh=mesh)
            return load_run_text_encoder(checkpoint, mesh=mesh)
        case folder:
            alone = open_encoder(folder)
    if alone is None:
        model = open_folder(folder)
        return model.text_encoder.read(mesh), model.contents.tokenizer
    if alone.what != "text encoder":
        raise UserError(f"{name} is a {alone.what}, not a text encoder")
    table, state = t5_table(t5_config(alone.config)), encoder_only(alone.state)
    tokenizer = str(alone.folder) if has_tokenizer(alone.folder) else ""
    return table.read(state, mesh), tokenizer


def parameter_bytes(name: str) -> int:
    """The size of the networks that `load_networks` reads, in float32; no tensor is read."""
    match _locate(name):
        case Checkpoint() as checkpoint:
            return run_parameter_bytes(checkpoint)
        case folder:
            model = open_folder(folder)
    states = (model.codec.state, model.text_encoder.state, model.separator.state)
    return 4 * sum(math.prod(tensor.shape) for state in states for tensor in state.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """A model whose configs and headers were read, but no tensor."""

    codec: Codec  # these two abstract: shapes and dtypes alone
    prompted: PromptedSeparator
    folder: pathlib.Path  # of the model or the workdir
    upstream: dict[str, Any]  # config.json; {} of a training run
    sampler: dict[str, Any]
    tokenizer: str  # a name, or a folder with its files
    tower: int = 0  # parameters of the vision tower in the folder, 0 without one
    audio_tower: int = 0  # and of the audio tower
    read_whole: bool = False  # in float32, before the matrices are brought to their form


def describe_model(name: str, storage: Storage = "float32") -> Described:
    """What `load_networks` would read; its matrices in the form `storage`. Raises as that does."""
    match _locate(name):
        case Checkpoint() as checkpoint:
            codec, prompted = abstract_run(checkpoint, storage)
            return Described(
                codec=codec if storage == "float32" else folded(codec),
                prompted=prompted,
                folder=checkpoint.workdir.path,
                upstream={},
                sampler=checkpoint.fields("separator").get("sampler", {}),
                tokenizer=run_settings(checkpoint)[0],
                audio_tower=_tower_size(load_extras(name)),
                read_whole=True,
            )
        case path:
            model = open_folder(path, compute=compute_of(storage))
    text = model.text_encoder.table.abstract.config
    sizes = model.separator.table.abstract.config
    prompted = abstract_prompted(text, sizes)
    tower = [t.shape for name, t in model.others.items() if name.startswith(TOWER_PREFIX)]
    codec = model.codec.table.abstract
    return Described(
        codec=codec if storage == "float32" else folded(codec),
        prompted=stored(prompted, storage),
        folder=model.path,
        upstream=model.config,
        sampler=model.contents.extra.get("sampler", {}),
        tokenizer=model.contents.tokenizer,
        tower=sum(math.prod(shape) for shape in tower),
        audio_tower=_tower_size(extras_of(model)),
    )


def _tower_size(extras: Mapping[str, Any]) -> int:
    """The parameters of the audio tower in what `load_extras` gives; 0 without one."""
    tower = extras.get("audio_tower")
    return sum(math.prod(tensor.shape) for tensor in tower.state.values()) if tower else 0


def codec_grid(name: str) -> tuple[int, int]:
    """Sample rate in Hz and hop in samples of the codec of a name; no tensor is read."""
    match _locate(name):
        case Checkpoint(workdir=workdir):
            fields = read_object(workdir.codec / "codec.json")
        case folder:
            stored = read_object(find_folder(folder, ("config.json",)) / "config.json")
            fields = with_defaults(stored)["audio_codec"]
    rates = fields.get("encoder_rates", CodecConfig.encoder_rates)
    return fields.get("sample_rate", CodecConfig.sample_rate), math.prod(rates)


def convert(
    name: str,
    path: str,
    *,
    dtype: FileDtype | None = None,
    fold: bool = False,
    tower: str | None = None,
    adapters: Sequence[str] = (),
    check: Callable[[Mapping[str, Any]], None] | None = None,
) -> bool:
    """Writes any of `load_networks`' names, or an encoder alone, into a new folder.

    Returns whether upstream's code has everything that it needs: an encoder alone, or a model with
    a vision tower. A folder is copied tensor by tensor. `dtype`, `fold` and `tower` as in
    `save_folder`; encoders are those of `open_encoder`. `adapters` are merged into the weights.
    `check` raises `UserError` for extras of a model (`load_extras`) that mean nothing.
    """
    match _locate(name):
        case Checkpoint():
            networks = load_networks(name, adapters=adapters)
            return save_folder(path, *networks, dtype=dtype, fold=fold, tower=tower)
        case folder:
            encoder = open_encoder(folder)
    if encoder is None and check is not None:
        check(load_extras(name))
    if encoder is None and adapters:
        networks = load_networks(name, adapters=adapters)
        return save_folder(path, *networks, dtype=dtype, fold=fold, tower=tower)
    if encoder is None:
        return copy_folder(folder, path, dtype=dtype, fold=fold, tower=tower)
    if tower is not None:
        raise UserError(f"{name} is a {encoder.what} alone; no tower can be put into it")
    if adapters:
        raise UserError(f"{name} is a {encoder.what} alone; adapters are of whole models")
    copy_encoder(encoder, pathlib.Path(path), dtype=dtype, export=fold)
    return True


def _locate(name: str) -> Checkpoint | str:
    """What a name means: a checkpoint of a run, or a model folder or Hugging Face id."""
    if (shipped := shipped_folder(name)) is not None:
        return str(shipped)
    return find_checkpoint(name) or name
