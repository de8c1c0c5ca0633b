"""Adapters of a model (LoRA) in a folder of a few megabytes, and what a call names of them.

    adapter.json          {"format": 1, "base": {"name": ..., "weights": digest}, "rank", "alpha",
                          "step" of its training, "texts" that it has learned; absent: none}
    adapter.safetensors   `LAYER.lora_a` and `LAYER.lora_b`, float32; stacked layers in one tensor

`weights` stands for text encoder and separator of the model that the adapter was trained beside: it
is loaded on top of that model alone, whatever the model is called (docs/finetuning.md, "LoRA").
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from sam_audio_jax.bounds import fits
from sam_audio_jax.convert.model_files import open_state, reading
from sam_audio_jax.convert.tensors import State, write_state
from sam_audio_jax.convert.training_run import read_factors
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import check_format, read_object, whole_folder, write_json
from sam_audio_jax.nn.fingerprint import fingerprint, same_weights
from sam_audio_jax.nn.lora import FACTORS, factors_by_layer, merge_factors
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.workdir import Checkpoint, find_checkpoint

FILE = "adapter.json"
FORMAT = 1
KEPT = "base"  # what the checkpoints of a run keep: the digest of the weights of its base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """Factors that belong to the model whose weights have the digest `weights`."""

    name: str  # folder, for messages
    base: str  # by which name the model was trained
    weights: str
    rank: int
    alpha: float
    step: int
    texts: tuple[str, ...] = ()  # prompts of the training, beside those that the model knows
    state: State  # of both factors of each layer; tensors may still be in their file

    @property
    def factors(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The two factors of each layer, read."""
        a, b = FACTORS
        layers = sorted({name.rpartition(".")[0] for name in self.state})
        return {
            layer: (np.asarray(self.state[f"{layer}.{a}"]), np.asarray(self.state[f"{layer}.{b}"]))
            for layer in layers
        }


@dataclasses.dataclass(frozen=True)
class NamedAdapter:
    """What `FOLDER[:SCALE]` means: an adapter, and by how much it counts."""

    name: str
    scale: float = 1.0


def parse_adapter(text: str) -> NamedAdapter:
    """`FOLDER`, or `FOLDER:SCALE` with a finite number. Raises `UserError` for no folder of it."""
    if pathlib.Path(text).is_dir():
        return NamedAdapter(text)
    folder, colon, number = text.rpartition(":")
    if colon and pathlib.Path(folder).is_dir():
        try:
            scale = float(number)
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale):
            raise UserError(f"adapter {shown(text)}: the scale after the colon must be a number")
        return NamedAdapter(folder, scale)
    raise UserError(f"no adapter {shown(text)}: name its folder, or FOLDER:SCALE")


def digest(base: PromptedSeparator) -> str:
    """Stands for the weights of a model that adapters are trained beside."""
    return fingerprint(base, rounded=True)


def open_adapter(name: str | pathlib.Path) -> Adapter:
    """An adapter by its folder, or by the workdir of a run that trains one (its newest step).

    Raises `UserError` where there is none.
    """
    folder = pathlib.Path(name)
    if (folder / FILE).is_file():
        return _open(folder)
    checkpoint = find_checkpoint(str(folder))
    if checkpoint is not None and base_of_run(checkpoint):
        return run_adapter(checkpoint)
    raise UserError(
        f"{folder} holds no adapter: neither {FILE} nor the workdir of a training with lora.rank"
    )


def _open(folder: pathlib.Path) -> Adapter:
    file = folder / FILE
    values = read_object(file)
    check_format(file, values, FORMAT)
    texts = values.get("texts", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file}: texts must be a list of texts, not {shown(texts)}")
    with reading(folder):
        adapter = Adapter(
            name=str(folder),
            base=str(values["base"]["name"]),
            weights=str(values["base"]["weights"]),
            rank=values["rank"],
            alpha=values["alpha"],
            step=values.get("step", 0),
            texts=tuple(texts),
            state=open_state(folder, "adapter"),
        )
    if not fits(int, adapter.rank) or adapter.rank < 1 or not fits(float, adapter.alpha):
        raise UserError(f"{file}: rank {shown(adapter.rank)} and alpha {shown(adapter.alpha)}")
    layers = {name.rpartition(".")[0] for name in adapter.state}
    wanted = {f"{layer}.{factor}" for layer in layers for factor in FACTORS}
    if wanted != set(adapter.state) or not wanted:
        odd = ", ".join(sorted(wanted ^ set(adapter.state))[:3]) or "nothing"
        raise UserError(f"{folder}: the factors of an adapter are pairs; not so are {odd}")
    return adapter


def base_of_run(checkpoint: Checkpoint) -> str:
    """The name of the model that a run trains adapters beside; "" for any other run."""
    config = checkpoint.run["config"]
    return config.get("init_from", "") if config.get("lora", {}).get("rank") else ""


def run_adapter(checkpoint: Checkpoint) -> Adapter:
    """The averaged adapter of one step of a run."""
    config = checkpoint.fields("lora")
    weights = checkpoint.workdir.kept_in_checkpoint(KEPT)
    if weights is None:
        raise UserError(f"{checkpoint.folder} does not say which weights its adapter stands beside")
    return make_adapter(
        str(checkpoint.workdir.path),
        read_factors(checkpoint),
        base=config["init_from"],
        weights=weights,
        rank=config["lora"]["rank"],
        alpha=config["lora"]["alpha"],
        step=checkpoint.step,
    )


def make_adapter(name: str, factors: PyTree, **fields: Any) -> Adapter:
    """An adapter from the pure tree of its factors; `fields` are the others of `Adapter`."""
    state = {
        f"{layer}.{factor}": np.asarray(value)
        for layer, pair in factors_by_layer(factors).items()
        for factor, value in zip(FACTORS, pair, strict=True)
    }
    return Adapter(name=name, state=state, **fields)


def save_adapter(path: str | pathlib.Path, adapter: Adapter) -> None:
    """Writes a new folder that `open_adapter` reads, whole or not at all."""
    own = {
        "format": FORMAT,
        "base": {"name": adapter.base, "weights": adapter.weights},
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "step": adapter.step,
        "texts": list(adapter.texts),
    }
    with whole_folder(path) as part:
        write_state(part / "adapter.safetensors", adapter.state, None)
        write_json(part / FILE, own)


def merge_adapters(
    prompted: PromptedSeparator, adapters: Sequence[tuple[Adapter, float]], name: str
) -> None:
    """Adds adapters, each times its scale, to the weights of the model `name`, in place.

    Several are trained beside one model and are added up. Raises `UserError` for one of other
    weights.
    """
    weights = digest(prompted)
    for adapter, _ in adapters:
        if not same_weights(adapter.weights, weights):
            raise UserError(
                f"adapter {adapter.name} was trained beside {adapter.base} (weights "
                f"{adapter.weights}), not beside {name} (weights {weights})"
            )
    for adapter, scale in adapters:
        merge_factors(prompted, adapter.factors, scale * adapter.alpha / adapter.rank)
