"""One encoder in a folder of its own: PE-A-Frame, the Perception Encoder, T5.

    config.json                the encoder's own keys
    model.safetensors          tensors under the reference's names, unused ones too
    [tokenizer files]

What is read is told by the keys of config.json, and without one, as upstream's Perception Encoder
is a single .pt file, by the names of the tensors. `model` may be `checkpoint`, and .pt.
"""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.convert.files import find_folder, open_file, open_state, read_json, write_json
from sam_audio_jax.convert.folder import TOKENIZER_FILES, FileDtype
from sam_audio_jax.convert.names import Table
from sam_audio_jax.convert.pe_a_frame import (
    CODEC,
    HUB,
    NAMES,
    span_predictor_config,
    span_predictor_table,
    used,
)
from sam_audio_jax.convert.t5 import encoder_only, t5_config, t5_table
from sam_audio_jax.convert.tensors import State, write_state, write_torch
from sam_audio_jax.convert.vision import (
    RELEASED,
    TOWER,
    tower_and_rest,
    tower_config,
    tower_config_to_reference,
    vision_table,
)
from sam_audio_jax.errors import UserError

ENDS = (".safetensors", ".pt")
FILES = ("config.json", *(f"*{end}*" for end in ENDS), *TOKENIZER_FILES)  # of a model of the hub


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """An encoder of which settings and headers were read: every tensor is there and fits."""

    what: str
    folder: pathlib.Path  # where it lies
    config: Mapping[str, Any]
    state: State
    pickled: str | None = None  # the file that upstream's code reads, if that is none of ours


def open_part(name: str) -> Part | None:
    """The encoder in a folder, a file, or under a Hugging Face id; None: it is a whole model.

    `pe-a-frame-small|base|large` and `PE-Core-L14-336` mean those of the hub. UserError: nothing
    there, or something does not fit; one line names every such tensor.
    """
    file = pathlib.Path(name)
    if file.is_file() and file.suffix in ENDS:
        return _tower(file)
    if (name in NAMES or name in RELEASED) and not file.is_dir():
        name = HUB + name
    folder = find_folder(name, ("config.json",))
    if (folder / "config.json").is_file():
        values = read_json(folder / "config.json")
        read = next((read for key, read in KINDS.items() if key in values), None)
        return None if read is None else read(find_folder(name, FILES), values)
    file = _only_file(find_folder(name, FILES))
    return None if file is None or not _is_tower(open_file(file)) else _tower(file)


def copy_part(
    part: Part, path: pathlib.Path, *, dtype: FileDtype | None = None, export: bool = False
) -> None:
    """Writes a folder with the same tensors, bit by bit, whole or not at all, one at a time.

    `dtype` is that of the file. `export` writes the file that upstream's code reads, which for the
    Perception Encoder takes torch.
    """
    if path.exists():
        raise UserError(f"{path} exists already: give the path of a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        new = pathlib.Path(place) / "new"
        new.mkdir()
        write_json(new / "config.json", part.config)
        if export and part.pickled is not None:
            write_torch(new / part.pickled, part.state, dtype)
        else:
            write_state(new / "model.safetensors", part.state, dtype)
        for name in TOKENIZER_FILES:
            if (part.folder / name).is_file():
                shutil.copy(part.folder / name, new / name)
        new.rename(path)


def _span_predictor(folder: pathlib.Path, values: dict[str, Any]) -> Part:
    state = open_state(folder, "checkpoint" if list(folder.glob("checkpoint.*")) else "model")
    waves = any(name.startswith(f"{CODEC}encoder.") for name in state)
    config = span_predictor_config(values, waves=waves)
    _check(folder, span_predictor_table(config), used(state, config))
    return Part(what="span predictor", folder=folder, config=values, state=state)


def _t5(folder: pathlib.Path, values: dict[str, Any]) -> Part:
    state = open_state(folder, "model")
    _check(folder, t5_table(t5_config(values)), encoder_only(state))
    return Part(what="text encoder", folder=folder, config=values, state=state)


def _tower_folder(folder: pathlib.Path, _: dict[str, Any]) -> Part:
    file = _only_file(folder)
    if file is None:
        raise UserError(f"{folder} must hold one file of tensors, {' or '.join(ENDS)}")
    return _tower(file)


def _tower(file: pathlib.Path) -> Part:
    """With the settings beside it; without any it must be the released one."""
    state, beside = open_file(file), file.with_name("config.json")
    if not _is_tower(state):
        raise UserError(f"{file} holds no vision tower: give the folder of another model")
    (released,) = RELEASED
    values = read_json(beside) if beside.is_file() else {}
    if "patch_size" not in values:
        values = tower_config_to_reference(RELEASED[released])
    config = tower_config(values)
    _check(file, vision_table(config), tower_and_rest(state)[0])
    return Part(
        what="vision tower",
        folder=file.parent,
        config=values,
        state=state,
        pickled=f"{released if config == RELEASED[released] else file.stem}.pt",
    )


# Key of `config.json` that no other encoder has -> its reader.
KINDS = {"audio_model": _span_predictor, "d_model": _t5, "patch_size": _tower_folder}


def _is_tower(state: State) -> bool:
    return any(name.startswith(TOWER) for name in state)


def _only_file(folder: pathlib.Path) -> pathlib.Path | None:
    files = [file for end in ENDS for file in sorted(folder.glob(f"*{end}"))]
    return files[0] if len(files) == 1 else None


def _check(where: pathlib.Path, table: Table, state: State) -> None:
    if wrong := table.misfits(state):
        raise UserError(f"{where}: {table.what} does not fit its config: {'; '.join(wrong)}")
