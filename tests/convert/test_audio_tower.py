"""The folder of an audio tower, alone and in a model's: kept by every copy, and checked."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.convert.audio_tower import open_audio_tower, save_audio_tower
from sam_audio_jax.convert.folder import load_folder, save_folder
from sam_audio_jax.convert.load import convert, load_text_encoder
from sam_audio_jax.errors import UserError
from tests import audio_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model with an audio tower."""
    path = tmp_path_factory.mktemp("model") / "folder"
    return audio_text.write_model(path, audio_text.stored_tower())


def leaves(tower):
    return jax.tree.leaves(nnx.as_pure(nnx.state(tower)))


def test_a_tower_is_read_as_it_was_written(folder, tmp_path):
    stored = open_audio_tower(folder)
    assert (stored.sizes, stored.space) == (audio_text.TOWER, audio_text.space())
    tower = stored.read()
    for ours, theirs in zip(leaves(tower), leaves(audio_text.tower()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    save_audio_tower(tmp_path / "half", stored, dtype="float16")
    halved = open_audio_tower(tmp_path / "half").read()
    np.testing.assert_allclose(leaves(halved)[0], leaves(tower)[0], rtol=1e-3)


def test_every_copy_of_a_model_keeps_its_tower(folder, tmp_path):
    convert(str(folder), str(tmp_path / "copy"))
    codec, prompted, tokenizer, extra = load_folder(folder)
    save_folder(tmp_path / "saved", codec, prompted, tokenizer, extra)
    convert(str(folder / "audio_tower"), str(tmp_path / "alone"))
    folders = [folder / "audio_tower", tmp_path / "copy" / "audio_tower"]
    folders += [tmp_path / "saved" / "audio_tower", tmp_path / "alone"]
    for file in ("config.json", "model.safetensors"):
        first, *others = [one / file for one in folders]
        assert [one.read_bytes() == first.read_bytes() for one in others] == [True] * 3
    with pytest.raises(UserError, match="is a tower for audio, not a text encoder"):
        load_text_encoder(str(tmp_path / "alone"))


def test_what_is_no_tower_is_one_line(folder, tmp_path):
    with pytest.raises(UserError, match=r"has no audio_tower"):
        open_audio_tower(folder / "t5")
    with pytest.raises(UserError, match=r"no audio tower in"):
        open_audio_tower(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder / "audio_tower", copy)
    values = json.loads((copy / "config.json").read_text())

    def write(**changes):
        (copy / "config.json").write_text(json.dumps(values | changes))

    write(format=2)
    with pytest.raises(UserError, match="has format 2, this version reads 1 to 1"):
        open_audio_tower(copy)
    write(audio_tower=values["audio_tower"] | {"embedding": 17})
    with pytest.raises(UserError, match=r"out\.kernel has shape \[16, 16\], not \[16, 17\]"):
        open_audio_tower(copy)
    write(space={"hop": 3})
    with pytest.raises(UserError, match="describes no network"):
        open_audio_tower(copy)
