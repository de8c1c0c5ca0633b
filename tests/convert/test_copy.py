"""Folder to folder: the same tensors bit by bit, those of other networks too."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sam_audio_jax.cli import convert
from sam_audio_jax.convert.folder import (
    VIDEO_GATE,
    copy_folder,
    load_folder,
    open_folder,
    save_folder,
)
from sam_audio_jax.convert.model_files import find_folder
from sam_audio_jax.convert.tensors import open_safetensors, write_state
from sam_audio_jax.errors import UserError

TOWER = "vision_encoder.model."
FILE = "checkpoint.safetensors"


def tower(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"{TOWER}visual.conv1.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
        f"{TOWER}token_embedding.weight": rng.normal(size=(9, 4)).astype(np.float32),
        f"{TOWER}logit_scale": np.array(rng.normal(), np.float32),
    }


@pytest.fixture(scope="module")
def official(reference, tmp_path_factory):
    """The reference's model with a vision tower and a stored mean that upstream never uses."""
    folder = shutil.copytree(reference, tmp_path_factory.mktemp("official") / "model")
    save_file(load_file(folder / FILE) | tower(), folder / FILE, metadata={"format": "pt"})
    return folder


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.golden
@pytest.mark.parametrize("fold", [True, False])
def test_a_copy_has_the_same_bytes(official, tmp_path, fold):
    assert copy_folder(official, tmp_path / "new", fold=fold)
    for name in (FILE, "t5/model.safetensors"):
        want, got = open_safetensors(official / name), open_safetensors(tmp_path / "new" / name)
        assert set(got) == set(want)
        for tensor in want:
            assert np.asarray(got[tensor]).tobytes() == np.asarray(want[tensor]).tobytes(), tensor
            assert got[tensor].dtype == want[tensor].dtype
    for name in ("config.json", "t5/config.json"):
        want, got = (
            json.loads((folder / name).read_text()) for folder in (official, tmp_path / "new")
        )
        assert got == want


@pytest.mark.golden
def test_a_copy_keeps_the_dtype_of_each_tensor(official, tmp_path):
    source = shutil.copytree(official, tmp_path / "source")
    kinds = (np.float16, ml_dtypes.bfloat16, np.float32)
    state = load_file(source / FILE)
    mixed = {n: w.astype(kinds[i % 3]) for i, (n, w) in enumerate(sorted(state.items()))}
    write_state(source / FILE, mixed)
    copy_folder(source, tmp_path / "new")
    assert (tmp_path / "new" / FILE).read_bytes() == (source / FILE).read_bytes()
    copy_folder(source, tmp_path / "wide", dtype="float32")
    wide = load_file(tmp_path / "wide" / FILE)
    assert {str(w.dtype) for w in wide.values()} == {"float32"}
    for name, tensor in mixed.items():
        np.testing.assert_array_equal(wide[name], tensor.astype(np.float32), err_msg=name)


@pytest.mark.golden
def test_the_tower_goes_through_our_parameters_and_back_unread(official, tmp_path):
    loaded = load_folder(official)
    assert save_folder(tmp_path / "new", *loaded)
    assert (tmp_path / "new" / FILE).read_bytes() == (official / FILE).read_bytes()


@pytest.mark.golden
def test_a_model_without_a_tower_can_be_given_one(reference, official, tmp_path):
    assert not copy_folder(reference, tmp_path / "bare", fold=True)
    assert copy_folder(reference, tmp_path / "new", tower=official)
    new = load_file(tmp_path / "new" / FILE)
    for name, tensor in tower().items():
        np.testing.assert_array_equal(new[name], tensor)
    assert set(new) == set(load_file(reference / FILE)) | set(tower())
    with pytest.raises(UserError, match="named for its vision tower has none"):
        copy_folder(reference, tmp_path / "none", tower=reference)
    other = shutil.copytree(official, tmp_path / "other")
    state = load_file(other / FILE)
    align = "align_masked_video.conv.weight"
    wide = {**state, align: np.zeros((*state[align].shape[:1], 99, 1), np.float32)}
    save_file(wide, other / FILE)
    settings = json.loads((other / "config.json").read_text())
    edit_json(other / "config.json", vision_encoder=settings["vision_encoder"] | {"dim": 99})
    with pytest.raises(UserError, match="a vision tower of 99 features does not fit"):
        copy_folder(reference, tmp_path / "none", tower=other)
    assert not (tmp_path / "none").exists()


@pytest.mark.golden
def test_sizes_come_from_the_file_and_not_from_the_name(official, tmp_path):
    renamed = shutil.copytree(official, tmp_path / "sam-audio-small-tv")
    sizes = [open_folder(folder).separator.table.shapes() for folder in (renamed, official)]
    assert sizes[0] == sizes[1]


@pytest.mark.golden
def test_the_error_names_what_is_missing_of_a_watermark(official, tmp_path):
    broken = shutil.copytree(official, tmp_path / "broken")
    state = load_file(broken / FILE)
    name = "audio_codec.decoder.wm_model.msg_processor.msg_processor.weight"
    del state[name]
    save_file(state, broken / FILE)
    with pytest.raises(UserError, match=f"missing {name}"):
        open_folder(broken)


def test_offline_means_no_network_and_one_line(monkeypatch, tmp_path):
    def connect(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    with pytest.raises(UserError, match="nor in the Hugging Face cache; HF_HUB_OFFLINE") as error:
        find_folder("somebody/sam-audio-nowhere", ("config.json",))
    assert "\n" not in str(error.value)


def test_a_model_that_never_saw_a_video_gets_no_tower_but_for_upstream(official, tmp_path, capsys):
    state = load_file(official / FILE)
    save_file(state | {VIDEO_GATE: np.zeros(1, np.float32)}, official / FILE)
    argv = ["--from", str(official), "--tower", str(official), "--to"]
    assert convert.main([*argv, str(tmp_path / "new")]) == 2
    assert "never trained on videos (align_masked_video.gate is 0)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not convert.main([*argv, str(tmp_path / "new"), "--export"])
    assert "it ignores what the tower sees" in capsys.readouterr().err
