"""The reference's tiny generator, loaded once as `load_folder` loads any model."""

import dataclasses
import pathlib

import jax
import pytest
from flax import nnx
from safetensors.flax import load_file

from sam_audio_jax.convert.folder import load_folder
from sam_audio_jax.separator.dit import Block


@dataclasses.dataclass(frozen=True)
class Golden:
    """Networks with the reference's weights, and its numbers by file name."""

    folder: pathlib.Path
    codec: nnx.Module
    text_encoder: nnx.Module
    separator: nnx.Module

    def numbers(self, name: str) -> dict[str, jax.Array]:
        return load_file(self.folder / f"{name}.safetensors")

    def block(self, layer: int) -> Block:
        graph, stacked = nnx.split(self.separator.dit.blocks)
        return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[layer], stacked))

    def context(self, memory: jax.Array) -> jax.Array:
        """What the blocks attend to, of the memory with its time; some configs have a norm here."""
        dit = self.separator.dit
        return dit.context(memory if dit.context_norm is None else dit.context_norm(memory))


@pytest.fixture(scope="session")
def golden(fixtures_dir, tmp_path_factory) -> Golden:
    folder = fixtures_dir.resolve() / "model"
    model = tmp_path_factory.mktemp("golden") / "model"
    model.mkdir()
    for source in [*(folder / "checkpoint").iterdir(), folder / "t5"]:
        (model / source.name).symlink_to(source)
    codec, prompted, _, _ = load_folder(model)
    return Golden(folder, codec, prompted.text_encoder, prompted.separator)
