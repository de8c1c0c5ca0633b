"""The reference's tiny model as a folder of its own, and what `load_folder` makes of it."""

import importlib.util
import pathlib
import shutil

import pytest

from sam_audio_jax.convert.folder import load_folder

DOOR = pathlib.Path(__file__).parents[2] / "launch" / "convert.py"


@pytest.fixture(scope="session")
def door():
    """The module of `launch/convert.py`."""
    spec = importlib.util.spec_from_file_location("convert_door", DOOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference(fixtures_dir, tmp_path_factory) -> pathlib.Path:
    model = tmp_path_factory.mktemp("reference") / "model"
    shutil.copytree(fixtures_dir / "model" / "checkpoint", model)
    shutil.copytree(fixtures_dir / "model" / "t5", model / "t5")
    return model


@pytest.fixture(scope="session")
def loaded(reference):
    return load_folder(reference)
