"""Networks of a training run, with the averaged weights (EMA) of one of its checkpoints.

`sam_audio_jax/workdir.py` knows the files of a run. A checkpoint has the items params, ema and
rest; only the item that is named is read, and only the part of it that is wanted.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from sam_audio_jax import parallel
from sam_audio_jax.audio import USUAL_DB
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.folded import folded
from sam_audio_jax.config import from_dict
from sam_audio_jax.convert.audio_tower import open_audio_tower
from sam_audio_jax.convert.codec import load_codec_folder
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.encoders.tokenizer_name import tokenizer_folder
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import read_json, read_object
from sam_audio_jax.nn import lora
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.storage import Storage, compute_of, stored
from sam_audio_jax.separator.model import PromptedSeparator, SeparatorConfig
from sam_audio_jax.workdir import Checkpoint

M = TypeVar("M", bound=nnx.Module)


def load_run(
    checkpoint: Checkpoint,
    *,
    mesh: Mesh | None = None,
    storage: Storage = "float32",
    compute: Storage | None = None,
    folds: bool = False,
) -> tuple[Codec, PromptedSeparator, str, dict[str, Any]]:
    """Reads the networks of a separator's run; the result is that of `folder.load_folder`.

    Another `storage` than float32 also sets the dtype of products, which is else the run's;
    `compute` sets it to that of another storage; `folds` as in `load_folder`. The run has the
    weights of all of its network: one that trains adapters does not. Raises `UserError` for the run
    of something else, and for a checkpoint of another config.
    """
    codec_folder, folder = checkpoint.workdir.codec, checkpoint.folder
    text, separator = _sizes(checkpoint.fields("separator"), compute or storage)
    codec = load_codec_folder(codec_folder, mesh=mesh)
    if folds:
        folded(codec)
    prompted = _read_module(
        folder, lambda: PromptedSeparator(text, separator, rngs=Rngs(0)), mesh=mesh
    )
    if storage != "float32":  # whole first: the checkpoint is read at once
        stored(prompted.text_encoder, storage)
        stored(prompted.separator, storage)
    tokenizer, extra = run_settings(checkpoint)
    return codec, prompted, tokenizer, extra


def run_settings(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """What a model that comes out of a run has besides its weights: its tokenizer, and extras."""
    config = checkpoint.fields("separator")
    extra = {"trained": {"step": checkpoint.step}} | separation_settings(config)
    if checkpoint.workdir.audio_tower.is_dir():
        extra["audio_tower"] = open_audio_tower(checkpoint.workdir.audio_tower)
    return tokenizer_folder(config["data"]["prompts"]["tokenizer"]), extra


def separation_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a model separates that comes out of a run of this config, whatever its weights."""
    return {
        "sampler": config.get("sampler", {}),
        "level_db": USUAL_DB,
        "normalizes_text": True,
        "ignored_spans": _ignored_spans(config["data"]["prompts"]),
    }


def read_factors(checkpoint: Checkpoint) -> PyTree:
    """The averaged factors of a run that trains adapters, as a pure tree of NumPy arrays."""
    config = checkpoint.fields("lora")["lora"]
    text, separator = _sizes(checkpoint.fields("separator"), "float32")

    def make() -> PromptedSeparator:
        rngs = Rngs(0)
        network = PromptedSeparator(text, separator, rngs=rngs)
        lora.add_adapters(network, config["layers"], rank=config["rank"], scale=1.0, rngs=rngs)
        return network

    factors, _ = lora.split_factors(nnx.as_pure(nnx.state(nnx.eval_shape(make))))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = parallel.with_shardings(factors, device)
    try:
        return jax.tree.map(np.asarray, read_item(checkpoint.folder, "ema", like))
    except ValueError as error:
        raise UserError(
            f"checkpoint {checkpoint.folder} is of another config: {first_line(error)}"
        ) from error


def _sizes(config: Mapping[str, Any], storage: Storage) -> tuple[T5Config, SeparatorConfig]:
    """The sizes of a run's networks, with the dtype of products that a storage has."""
    text = from_dict(T5Config, config["text"])
    separator = from_dict(SeparatorConfig, config["separator"])
    if storage == "float32":
        return text, separator
    compute = compute_of(storage)
    dit = dataclasses.replace(separator.dit, dtype=compute)
    return dataclasses.replace(text, dtype=compute), dataclasses.replace(separator, dit=dit)


def abstract_run(
    checkpoint: Checkpoint, storage: Storage = "float32"
) -> tuple[Codec, PromptedSeparator]:
    """The networks that `load_run` reads, as shapes and dtypes alone."""
    text, separator = _sizes(checkpoint.fields("separator"), storage)
    codec = from_dict(CodecConfig, read_json(checkpoint.workdir.codec / "codec.json"))

    def make() -> tuple[Codec, PromptedSeparator]:
        rngs = Rngs(0)
        return Codec(codec, rngs=rngs), PromptedSeparator(text, separator, rngs=rngs)

    networks, prompted = nnx.eval_shape(make)
    return networks, stored(prompted, storage)


def run_parameter_bytes(checkpoint: Checkpoint) -> int:
    """The size of the networks that `load_run` reads, in float32."""
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(abstract_run(checkpoint))))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _ignored_spans(prompts: Mapping[str, Any]) -> list[str]:
    """The tokens of spans that no example of a run had."""
    if not prompts.get("span_share", 1):
        return ["+", "-"]
    return [] if prompts.get("negative_share", 1) else ["-"]


def load_run_text_encoder(
    checkpoint: Checkpoint, *, mesh: Mesh | None = None
) -> tuple[T5Encoder, str]:
    """Reads the text encoder of a separator's run, and the name of its tokenizer."""
    config = checkpoint.fields("separator")
    sizes = from_dict(T5Config, config["text"])
    encoder = _read_module(
        checkpoint.folder, lambda: T5Encoder(sizes, rngs=Rngs(0)), "text_encoder", mesh=mesh
    )
    return encoder, tokenizer_folder(config["data"]["prompts"]["tokenizer"])


def load_run_codec(checkpoint: Checkpoint) -> Codec:
    """Reads the codec that a separator's run was trained with, or the one that a run trains."""
    workdir = checkpoint.workdir
    if workdir.codec.is_dir():
        return load_codec_folder(workdir.codec)
    fields = checkpoint.fields("discriminator")["codec"]
    if workdir.latents_file.is_file():
        fields = fields | read_object(workdir.latents_file)
    config = from_dict(CodecConfig, fields)
    return _read_module(checkpoint.folder, lambda: Codec(config, rngs=Rngs(0)), "generator")


def read_item(checkpoint: pathlib.Path, item: str, like: PyTree) -> PyTree:
    """Reads one item (`ema`, `params`) of a checkpoint, and nothing else of it.

    `like` gives tree, shapes, dtypes and, if set, shardings; a part of the saved tree is enough.
    Raises `UserError` when the checkpoint has no such item.
    """
    if not (checkpoint / item).is_dir():
        raise UserError(f"no {item} in checkpoint {checkpoint}")
    import orbax.checkpoint.experimental.v1 as ocp  # not above: 25 MB, for runs alone

    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(str(checkpoint.absolute()), like, checkpointable_name=item)


def _read_module(
    checkpoint: pathlib.Path, make: Callable[[], M], part: str = "", *, mesh: Mesh | None = None
) -> M:
    """The module that `make` builds, from the averaged weights or the part of them with a name."""
    graph, abstract = nnx.split(nnx.eval_shape(make))
    pure = nnx.as_pure(abstract)
    if mesh:
        shardings = parallel.parameter_shardings(abstract, mesh)
    else:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: device, pure)
    like = parallel.with_shardings(pure, shardings)
    try:
        weights = read_item(checkpoint, "ema", {part: like} if part else like)
    except ValueError as error:
        raise UserError(
            f"checkpoint {checkpoint} is of another config: {first_line(error)}"
        ) from error
    return nnx.merge(graph, weights[part] if part else weights)
