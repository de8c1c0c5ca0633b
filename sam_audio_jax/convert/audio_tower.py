"""The audio tower in a folder of its own, or in that of a model.

    config.json          {"format": 1, "audio_tower": sizes, "space": what it was trained between,
                          [notes]}
    model.safetensors    our parameters by our names, one tensor for each layer

The network is ours, so there are no other names. A model folder holds one as `audio_tower/`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.config import from_dict, to_dict
from sam_audio_jax.convert.model_files import find_folder, open_state, reading
from sam_audio_jax.convert.names import Row, Table, parameters
from sam_audio_jax.convert.tensors import State, write_state
from sam_audio_jax.encoders.audio_tower import AudioTextSpace, AudioTower, AudioTowerConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_format, read_object, whole_folder, write_json
from sam_audio_jax.nn.rngs import Rngs

KEY = "audio_tower"  # of config.json, by which the folder is recognised
FOLDER = "audio_tower"  # in that of a model
FORMAT = 1
PATTERNS = ("config.json", "model.safetensors", f"{FOLDER}/*")
STACK = "audio.blocks."  # of all layers


@functools.lru_cache(maxsize=16)
def audio_tower_table(config: AudioTowerConfig) -> Table[AudioTower]:
    """The names of all tensors of a tower of this configuration."""

    def make() -> AudioTower:
        return AudioTower(config, rngs=Rngs(0))

    rows = [_row(name) for name in parameters(nnx.eval_shape(make))]
    return Table(make, rows, config.audio.depth, "audio tower")


def _row(name: str) -> Row:
    if not name.startswith(STACK):
        return Row(name, name)
    return Row(f"{STACK}{{layer}}.{name.removeprefix(STACK)}", name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredAudioTower:
    """A tower whose config and headers were read: every tensor is there and fits."""

    folder: pathlib.Path
    config: Mapping[str, Any]  # content of config.json
    state: State

    @functools.cached_property
    def sizes(self) -> AudioTowerConfig:
        return from_dict(AudioTowerConfig, self.config[KEY], where="audio_tower.")

    @functools.cached_property
    def space(self) -> AudioTextSpace:
        """What it was trained between."""
        return from_dict(AudioTextSpace, self.config["space"], where="space.")

    def read(self, mesh: Mesh | None = None) -> AudioTower:
        """The tower; with a mesh every parameter is sharded while it is read."""
        return audio_tower_table(self.sizes).read(self.state, mesh)

    def write(self, path: pathlib.Path, dtype: str | None = None) -> None:
        """Copies config and tensors into a new folder `path`."""
        write_json(path / "config.json", dict(self.config))
        write_state(path / "model.safetensors", self.state, dtype)


def open_audio_tower(path: str | pathlib.Path) -> StoredAudioTower:
    """Reads config and headers of a tower's folder, or of a model's that has one; no tensor.

    `path` may also be a Hugging Face id. Raises `UserError` when there is none, or with one line
    that names every misfit.
    """
    folder = find_folder(str(path), PATTERNS)
    if (folder / FOLDER / "config.json").is_file():
        folder = folder / FOLDER
    if not (folder / "config.json").is_file():
        raise UserError(f"no audio tower in {path}: name the folder of one")
    with reading(folder):
        values = read_object(folder / "config.json")
        if KEY not in values:
            raise UserError(f"{folder} holds no audio tower: its config.json has no {KEY}")
        check_format(folder / "config.json", values, FORMAT)
        stored = StoredAudioTower(folder=folder, config=values, state=open_state(folder, "model"))
        _ = stored.space
        if misfits := audio_tower_table(stored.sizes).misfits(stored.state):
            raise UserError(f"{folder}: audio tower does not fit its config: {'; '.join(misfits)}")
    return stored


def stored_audio_tower(
    tower: AudioTower, space: AudioTextSpace, notes: Mapping[str, Any] | None = None
) -> StoredAudioTower:
    """A tower in memory in the form of a stored one, to be written; `notes` for its config.json."""
    own = {"format": FORMAT, KEY: to_dict(tower.config), "space": to_dict(space)}
    return StoredAudioTower(
        folder=pathlib.Path(),
        config=dict(notes or {}) | own,
        state=audio_tower_table(tower.config).stored(tower),
    )


def save_audio_tower(
    path: str | pathlib.Path,
    tower: StoredAudioTower,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a folder that `open_audio_tower` reads, whole or not at all.

    `dtype` is that of the file ("float16" halves it). Raises `UserError` when `path` exists, unless
    it may `overwrite` it.
    """
    with whole_folder(pathlib.Path(path), overwrite=overwrite) as part:
        tower.write(part, dtype)
