"""The reference's tiny model as a folder of its own, and as `load_folder` reads it."""

import pathlib
import shutil

import pytest

from sam_audio_jax.cli import convert
from sam_audio_jax.convert.folder import load_folder


@pytest.fixture(scope="session")
def command():
    """The module of `sam-audio convert`."""
    return convert


@pytest.fixture(scope="session")
def reference(fixtures_dir, tmp_path_factory) -> pathlib.Path:
    model = tmp_path_factory.mktemp("reference") / "model"
    shutil.copytree(fixtures_dir / "model" / "checkpoint", model)
    shutil.copytree(fixtures_dir / "model" / "t5", model / "t5")
    return model


@pytest.fixture(scope="session")
def loaded(reference):
    return load_folder(reference)
