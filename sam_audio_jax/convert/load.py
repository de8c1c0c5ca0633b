"""Networks by name: a shipped model, a run's workdir, one step of it, an upstream folder, an HF id.

A workdir is what `train/` leaves: `config.json`, `checkpoints/STEP/ITEM/` and, for a separator,
`codec/`, the frozen codec that it was trained with. Only the items asked for are read.
"""

import math
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import orbax.checkpoint.experimental.v1 as ocp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.config import from_dict, to_dict
from sam_audio_jax.convert.codec import codec_from_reference, codec_table
from sam_audio_jax.convert.encoders import copy_part, open_part
from sam_audio_jax.convert.files import find_folder, open_state, read_json, write_json
from sam_audio_jax.convert.folder import (
    CODEC_PREFIX,
    FileDtype,
    copy_folder,
    load_folder,
    open_folder,
    save_folder,
)
from sam_audio_jax.convert.tensors import write_state
from sam_audio_jax.convert.upstream_config import checked_config
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig
from sam_audio_jax.workdir import Workdir, find_checkpoint

SHIPPED = pathlib.Path(__file__).parent.parent / "pretrained"


def load_networks(
    name: str, *, mesh: Mesh | None = None
) -> tuple[Codec, PromptedSeparator, str, dict[str, Any]]:
    """Codec, text encoder with separator, tokenizer name, extras, as `convert.folder.load_folder`.

    `name`: a shipped model, a separator's workdir (its newest step), `WORKDIR/best`,
    `WORKDIR/checkpoints/STEP`, a folder in the upstream layout, or a Hugging Face id. With a mesh
    every parameter is born in its places.
    """
    checkpoint = _find_checkpoint(name)
    if checkpoint is None:
        return load_folder(_folder(name), mesh=mesh)
    workdir, step = checkpoint
    config = _run_config(workdir, "separator")
    prompted = _read_module(
        workdir.checkpoint(step),
        lambda: PromptedSeparator(
            from_dict(T5Config, config["text"]),
            from_dict(SeparatorConfig, config["separator"]),
            rngs=nnx.Rngs(0),
        ),
        mesh=mesh,
    )
    extra = {"trained": {"step": step}, "sampler": config.get("sampler", {})}
    codec = load_codec_folder(workdir.codec, mesh=mesh)
    return codec, prompted, config["data"]["prompts"]["tokenizer"], extra


def convert(
    name: str,
    path: str,
    *,
    dtype: FileDtype | None = None,
    fold: bool = False,
    tower: str | None = None,
) -> bool:
    """Any of `load_networks`' names, or an encoder alone, into a folder of its own.

    The result says whether upstream's code has all that it wants: an encoder alone, or a model with
    a vision tower. A folder is copied tensor by tensor. `dtype` and `fold` as in
    `folder.save_folder`; `tower` is a folder or Hugging Face id whose vision tower the new one
    gets. Encoders are those of `parts.open_part`.
    """
    if _find_checkpoint(name) is None:
        if part := open_part(_folder(name)):
            if tower is not None:
                raise UserError(f"{name} is a {part.what} alone; no tower can be put into it")
            copy_part(part, pathlib.Path(path), dtype=dtype, export=fold)
            return True
        return copy_folder(_folder(name), path, dtype=dtype, fold=fold, tower=tower)
    return save_folder(path, *load_networks(name), dtype=dtype, fold=fold, tower=tower)


def codec_grid(name: str) -> tuple[int, int]:
    """Sample rate and hop of the codec of any of `load_networks`' names; no tensor is read."""
    checkpoint = _find_checkpoint(name)
    if checkpoint is not None:
        fields = read_json(checkpoint[0].codec / "codec.json")
    else:
        folder = find_folder(_folder(name), ("config.json",))
        fields = checked_config(read_json(folder / "config.json"))["audio_codec"]
    default = CodecConfig()
    rates = fields.get("encoder_rates", default.encoder_rates)
    return fields.get("sample_rate", default.sample_rate), math.prod(rates)


def load_codec(name: str) -> Codec:
    """The codec of any of `load_networks`' names, or of a codec's workdir."""
    checkpoint = _find_checkpoint(name)
    if checkpoint is None:
        opened = open_folder(_folder(name))
        return opened.codec.read(opened.part(CODEC_PREFIX))
    workdir, step = checkpoint
    if workdir.codec.is_dir():
        return load_codec_folder(workdir.codec)
    fields = _run_config(workdir, "discriminator")["codec"]
    if workdir.latents_file.is_file():
        fields |= read_json(workdir.latents_file)
    config = from_dict(CodecConfig, fields)
    folder = workdir.checkpoint(step)
    return _read_module(folder, lambda: Codec(config, rngs=nnx.Rngs(0)), "generator")


def save_codec_folder(folder: pathlib.Path, codec: Codec) -> None:
    """The codec alone, under the reference's tensor names; whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        new = pathlib.Path(place) / "new"
        new.mkdir()
        write_json(new / "codec.json", to_dict(codec.config))
        write_state(new / "checkpoint.safetensors", codec_table(codec.config).stored(codec))
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)


def load_codec_folder(folder: pathlib.Path, *, mesh: Mesh | None = None) -> Codec:
    """What `save_codec_folder` wrote."""
    config = from_dict(CodecConfig, read_json(folder / "codec.json"))
    return codec_from_reference(open_state(folder, "checkpoint"), config, mesh)


def read_item(step: pathlib.Path, item: str, like: PyTree) -> PyTree:
    """One item (`ema`, `params`) of one checkpoint; nothing else of it is read.

    `like` gives tree, shapes, dtypes and, if set, shardings; a part of the saved tree is enough.
    """
    if not (step / item).is_dir():
        raise UserError(f"no {item} in checkpoint {step}")
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(str(step.absolute()), like, checkpointable_name=item)


def _is_shipped(name: str) -> bool:
    return pathlib.Path(name).name == name and (SHIPPED / name / "config.json").is_file()


def _folder(name: str) -> str:
    """Where a shipped model lies; other names as they are."""
    return str(SHIPPED / name) if _is_shipped(name) else name


def _find_checkpoint(name: str) -> tuple[Workdir, int] | None:
    """The run and the step that `name` means; None when it is no workdir."""
    return None if _is_shipped(name) else find_checkpoint(name)


def _run_config(workdir: Workdir, needs: str) -> dict[str, Any]:
    saved = workdir.read_config()
    if needs not in saved["config"]:
        kind = saved["experiment"]
        raise UserError(f"{workdir.path} is the workdir of a {kind}, which has no {needs}")
    return saved["config"]


def _read_module(step: pathlib.Path, make: Any, part: str = "", *, mesh: Mesh | None = None) -> Any:
    """A module with the averaged parameters (EMA) of a checkpoint."""
    graph, abstract = nnx.split(nnx.eval_shape(make))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    pure = nnx.as_pure(abstract)
    places = (
        parallel.parameter_shardings(abstract, mesh)
        if mesh
        else jax.tree.map(lambda _: device, pure)
    )
    like = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), pure, places
    )
    try:
        found = read_item(step, "ema", {part: like} if part else like)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"checkpoint {step} is of another config: {reason}") from error
    return nnx.merge(graph, found[part] if part else found)
