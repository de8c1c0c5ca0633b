"""Encoders alone, by `sam-audio convert`: the same bytes, every misfit named, whole or not."""

import json
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sam_audio_jax.convert import encoders
from sam_audio_jax.convert.encoders import copy_encoder, open_encoder
from sam_audio_jax.convert.model_files import open_file
from sam_audio_jax.convert.vision import tower_config
from sam_audio_jax.errors import UserError

pytestmark = pytest.mark.golden
# Fixture's folder, its file, a tensor of it, one that does not belong there, what errors call it.
ENCODERS = {
    "pe-a-frame": (
        "pe_a_frame",
        "weights",
        "audio_head.proj.weight",
        "audio_head.surplus",
        "span predictor checkpoint",
    ),
    "tower": (
        "pe_vision/case_cls",
        "weights",
        "visual.proj",
        "visual.surplus",
        "vision tower",
    ),
    "scaled tower": (
        "pe_vision/case_nocls_layerscale",
        "weights",
        "visual.proj",
        "visual.surplus",
        "vision tower",
    ),
    "t5": (
        "model/t5",
        "model",
        "encoder.final_layer_norm.weight",
        "encoder.surplus",
        "T5 checkpoint",
    ),
}


@pytest.fixture(params=list(ENCODERS))
def encoder(request, fixtures_dir, tmp_path):
    """A writable folder in the reference's layout, with the rest of `ENCODERS`."""
    where, stem, *rest = ENCODERS[request.param]
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copy(fixtures_dir / where / "config.json", folder)
    shutil.copy(fixtures_dir / where / f"{stem}.safetensors", folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder, *rest


@pytest.fixture
def tower(fixtures_dir, tmp_path, monkeypatch):
    """A file alone, as upstream's, of the sizes that a released one is made to have."""
    source = fixtures_dir / "pe_vision" / "case_cls"
    config = tower_config(json.loads((source / "config.json").read_text()))
    monkeypatch.setattr(encoders, "RELEASED", {"PE-Core-L14-336": config})
    (tmp_path / "released").mkdir()
    file = tmp_path / "released" / "PE-Core-L14-336.safetensors"
    rest = {"logit_scale": np.array(3, np.float32), "ln_final.bias": np.ones(2, np.float16)}
    save_file(load_file(source / "weights.safetensors") | rest, file, metadata={"format": "pt"})
    return file


def convert(command, source, to, *flags):
    return command.main(["--from", str(source), "--to", str(to), *flags])


def same(ours, theirs):
    ours, theirs = open_file(ours), open_file(theirs)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert ours[name].shape == tensor.shape
        assert np.asarray(ours[name]).tobytes() == np.asarray(tensor).tobytes(), name


def edit(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_there_and_back_is_the_same_bytes(command, encoder, tmp_path):
    folder, *_ = encoder
    assert convert(command, folder, tmp_path / "ours") == 0
    back = () if encoder[-1] == "vision tower" else ("--export",)
    assert convert(command, tmp_path / "ours", tmp_path / "back", *back) == 0
    same(tmp_path / "back" / "model.safetensors", folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        want, got = (json.loads((path / name).read_text()) for path in (folder, tmp_path / "back"))
        assert got == want
    assert {path.name for path in tmp_path.iterdir()} == {"source", "ours", "back"}


def test_half_precision_halves_the_file(command, encoder, tmp_path):
    folder, name, *_ = encoder
    assert convert(command, folder, tmp_path / "half", "--dtype", "float16") == 0
    got = load_file(tmp_path / "half" / "model.safetensors")[name]
    want = load_file(folder / "model.safetensors")[name].astype(np.float16)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float16


def test_one_line_names_every_tensor_that_does_not_fit(command, encoder, tmp_path, capsys):
    folder, name, surplus, what = encoder
    lost = sorted(load_file(folder / "model.safetensors"))[0]

    def change(state):
        del state[lost]
        state[name] = np.zeros((3, 5, 2), np.float32)
        state[surplus] = np.zeros(1, np.float32)

    edit(folder, change)
    assert convert(command, folder, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {folder}")
    assert f"{what} does not fit its config: " in message
    for phrase in (
        f"missing {lost} [",
        f"{name} has shape [3, 5, 2], not [",
        f"unexpected {surplus}",
    ):
        assert phrase in message
    assert message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_file_that_is_cut_off_leaves_nothing(command, encoder, tmp_path, capsys):
    file = encoder[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert convert(command, encoder[0], tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {file} is not a whole safetensors file")
    assert message.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_tensor_that_is_cut_off_on_the_way_leaves_nothing(encoder, tmp_path):
    encoder_alone = open_encoder(str(encoder[0]))
    file = encoder[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model\.safetensors was cut off: .* bytes"):
        copy_encoder(encoder_alone, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_released_tower_needs_no_config(command, tower, tmp_path, kind):
    assert convert(command, tower if kind == "file" else tower.parent, tmp_path / "ours") == 0
    same(tmp_path / "ours" / "model.safetensors", tower)
    assert convert(command, tmp_path / "ours", tmp_path / "again") == 0
    same(tmp_path / "again" / "model.safetensors", tower)


def test_the_towers_file_for_upstream_is_torchs(command, tower, tmp_path):
    pytest.importorskip("torch")
    assert convert(command, tower, tmp_path / "out", "--export") == 0
    same(tmp_path / "out" / "PE-Core-L14-336.pt", tower)
    assert convert(command, tmp_path / "out" / "PE-Core-L14-336.pt", tmp_path / "back") == 0
    same(tmp_path / "back" / "model.safetensors", tower)


def test_without_torch_the_towers_export_says_so(command, tower, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert(command, tower, tmp_path / "out", "--export") == 2
    assert "error: PE-Core-L14-336.pt needs torch to be written: pip" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"released"}


def test_what_is_no_encoder_is_one_line(command, tower, tmp_path, capsys):
    other = tower.with_name("other.safetensors")
    save_file({"weight": np.zeros(2, np.float32)}, other)
    assert convert(command, other, tmp_path / "out") == 2
    assert "holds no vision tower: give the folder of another model" in capsys.readouterr().err
    assert convert(command, tower, tmp_path / "out", "--tower", "somewhere") == 2
    assert "is a vision tower alone; no tower can be put into it" in capsys.readouterr().err
    assert convert(command, tower.parent, tmp_path / "out") == 2  # two files, no config
    assert "error: no file " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
