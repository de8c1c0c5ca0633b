"""One frozen network in a folder of its own: PE-A-Frame, the Perception Encoder, T5, the judge,
the audio tower.

The word vectors of a package are read as a T5 (convert/word_vectors.py).

    config.json                the network's own keys
    model.safetensors          tensors under the reference's names, unused ones too
    [sam_audio_jax.json]       settings of ours, of a judge that was trained here
    [tokenizer files]

The keys of config.json say which network it is. Upstream's Perception Encoder is a single .pt file
without one: there the names of the tensors decide. `model` may be `checkpoint`, and .pt.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.convert import audio_tower, judge
from sam_audio_jax.convert.audio_tower import open_audio_tower
from sam_audio_jax.convert.folder import OURS, FileDtype
from sam_audio_jax.convert.judge import is_released_judge, open_judge
from sam_audio_jax.convert.model_files import (
    TOKENIZER_FILES,
    copy_tokenizer,
    find_folder,
    open_file,
    open_state,
    reading,
)
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
from sam_audio_jax.convert.word_vectors import find_word_vectors, read_word_vectors
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object, whole_folder, write_json

SUFFIXES = (".safetensors", ".pt")
PATTERNS = ("config.json", OURS, *(f"*{suffix}*" for suffix in SUFFIXES), *TOKENIZER_FILES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredEncoder:
    """An encoder whose config and headers were read: every tensor is there and fits."""

    what: str  # for errors
    folder: pathlib.Path
    config: Mapping[str, Any]
    state: State
    extra: Mapping[str, Any] | None = None  # of sam_audio_jax.json, if there is one
    pickled: str | None = None  # name of the file that upstream's code reads, if it reads no other
    # Tokenizer files by name, of a network whose folder has none in their published form.
    tokenizer: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def open_encoder(name: str) -> StoredEncoder | None:
    """Opens the encoder in a folder or a file, or under a Hugging Face id; None for a whole model.

    `pe-a-frame-small|base|large`, `PE-Core-L14-336` and `sam-audio-judge` mean those of the hub,
    `wordllama` the installed package.
    Raises `UserError` when there is nothing of that name, or with one line that names every tensor
    that does not fit.
    """
    file = pathlib.Path(name)
    if file.is_file() and file.suffix in SUFFIXES:
        return _tower(file)
    if is_released_judge(name):
        return _judge(name)
    if package := find_word_vectors(name):
        return _word_vectors(package)
    if (name in NAMES or name in RELEASED) and not file.is_dir():
        name = HUB + name
    folder = find_folder(name, ("config.json",))
    if (folder / "config.json").is_file():
        values = read_object(folder / "config.json")
        read = next((read for key, read in READERS.items() if key in values), None)
        if read is None:
            return None
        with reading(folder):
            return read(find_folder(name, PATTERNS), values)
    file = only_file(find_folder(name, PATTERNS))
    return None if file is None or not _is_tower(open_file(file)) else _tower(file)


def copy_encoder(
    encoder: StoredEncoder,
    path: pathlib.Path,
    *,
    dtype: FileDtype | None = None,
    export: bool = False,
) -> None:
    """Writes a folder with the same tensors, bit by bit, whole or not at all, one at a time.

    `dtype` is that of the file. `export` writes the file that upstream's code reads, which for the
    Perception Encoder needs torch. Raises `UserError` when `path` exists or torch is missing.
    """
    with whole_folder(path) as part:
        write_json(part / "config.json", encoder.config)
        if encoder.extra is not None:
            write_json(part / OURS, encoder.extra)
        if export and encoder.pickled is not None:
            write_torch(part / encoder.pickled, encoder.state, dtype)
        else:
            write_state(part / "model.safetensors", encoder.state, dtype)
        copy_tokenizer(encoder.folder, part)
        for name, values in encoder.tokenizer.items():
            write_json(part / name, values)


def _span_predictor(folder: pathlib.Path, values: dict[str, Any]) -> StoredEncoder:
    state = open_state(folder, "checkpoint", "model")
    waves = any(name.startswith(f"{CODEC}encoder.") for name in state)
    config = span_predictor_config(values, waves=waves)
    _check(folder, span_predictor_table(config), used(state, config))
    return StoredEncoder(what="span predictor", folder=folder, config=values, state=state)


def _judge(name: str | pathlib.Path, _: Mapping[str, Any] | None = None) -> StoredEncoder:
    stored = open_judge(name)
    return StoredEncoder(
        what="judge",
        folder=stored.folder,
        config=stored.config,
        state=stored.state,
        extra=stored.extra or None,
    )


def _t5(folder: pathlib.Path, values: dict[str, Any]) -> StoredEncoder:
    state = open_state(folder, "model")
    _check(folder, t5_table(t5_config(values)), encoder_only(state))
    return StoredEncoder(what="text encoder", folder=folder, config=values, state=state)


def _audio_tower(folder: pathlib.Path, values: dict[str, Any]) -> StoredEncoder:
    state = open_audio_tower(folder).state
    return StoredEncoder(what="tower for audio", folder=folder, config=values, state=state)


def _word_vectors(folder: pathlib.Path) -> StoredEncoder:
    config, state, tokenizer = read_word_vectors(folder)
    return StoredEncoder(
        what="text encoder", folder=folder, config=config, state=state, tokenizer=tokenizer
    )


def _tower_folder(folder: pathlib.Path, _: dict[str, Any]) -> StoredEncoder:
    file = only_file(folder)
    if file is None:
        raise UserError(f"{folder} must hold one file of tensors, {' or '.join(SUFFIXES)}")
    return _tower(file)


def _tower(file: pathlib.Path) -> StoredEncoder:
    """Opens a tower with the config beside its file; without one it must be the released tower."""
    state, config_file = open_file(file), file.with_name("config.json")
    if not _is_tower(state):
        raise UserError(f"{file} holds no vision tower: give the folder of another model")
    (released,) = RELEASED
    values = read_object(config_file) if config_file.is_file() else {}
    if "patch_size" not in values:
        values = tower_config_to_reference(RELEASED[released])
    config = tower_config(values)
    _check(file, vision_table(config), tower_and_rest(state)[0])
    return StoredEncoder(
        what="vision tower",
        folder=file.parent,
        config=values,
        state=state,
        pickled=f"{released if config == RELEASED[released] else file.stem}.pt",
    )


# Keys of `config.json`, each of one network only, and their readers.
READERS = {
    "audio_model": _span_predictor,
    "d_model": _t5,
    "patch_size": _tower_folder,
    judge.SCORING: _judge,
    audio_tower.KEY: _audio_tower,
}


def _is_tower(state: State) -> bool:
    return any(name.startswith(TOWER) for name in state)


def only_file(folder: pathlib.Path) -> pathlib.Path | None:
    """The file of tensors in a folder; None where there is none, or more than one."""
    files = [file for suffix in SUFFIXES for file in sorted(folder.glob(f"*{suffix}"))]
    return files[0] if len(files) == 1 else None


def _check(path: pathlib.Path, table: Table, state: State) -> None:
    if misfits := table.misfits(state):
        raise UserError(f"{path}: {table.what} does not fit its config: {'; '.join(misfits)}")
