"""Files of tensors: read when needed, byte for byte as the format's library, every damage named."""

import json
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sam_audio_jax.convert.model_files import open_state
from sam_audio_jax.convert.tensors import (
    CHECKED,
    Stored,
    check_finite,
    open_safetensors,
    open_torch,
    write_state,
)
from sam_audio_jax.errors import UserError


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    return {
        "b.weight": rng.normal(size=(3, 5)).astype(np.float32),
        "a.half": rng.normal(size=(7,)).astype(np.float16),
        "scalar": np.array(3, np.float32),
        "none": np.zeros((0, 4), np.float32),
        "counts": np.arange(5),
        "flags": np.array([True, False, True]),
        "ü": rng.integers(0, 255, size=(2, 3)).astype(np.uint8),
    }


def test_what_is_written_is_what_the_formats_own_writer_writes(state, tmp_path):
    write_state(tmp_path / "ours", state)
    save_file(state, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_headers_give_shapes_and_tensors_are_read_one_by_one(state, tmp_path):
    state["brain"] = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    write_state(tmp_path / "file", state)
    opened = open_safetensors(tmp_path / "file")
    assert {n: (t.shape, t.dtype) for n, t in opened.items()} == {
        n: (w.shape, w.dtype) for n, w in state.items()
    }
    for name, tensor in state.items():
        np.testing.assert_array_equal(np.asarray(opened[name]), tensor)
    assert np.asarray(opened["brain"], np.float32).dtype == np.float32


def test_copies_of_files_are_the_same_bytes(state, tmp_path):
    state["brain"] = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    write_state(tmp_path / "first", state)
    write_state(tmp_path / "second", open_safetensors(tmp_path / "first"))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_only_floating_tensors_change_their_dtype(state, tmp_path):
    write_state(tmp_path / "file", state, "float16")
    back = load_file(tmp_path / "file")
    kinds = {name: str(tensor.dtype) for name, tensor in back.items()}
    assert kinds == {name: str(w.dtype).replace("float32", "float16") for name, w in state.items()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_values_that_are_not_finite_are_found_wherever_they_are(dtype):
    values = np.full((CHECKED + 3, 2), ml_dtypes.finfo(dtype).max, dtype)
    assert check_finite("a", values) is values
    check_finite("a", values[:0])
    for place, value in ((-1, np.nan), (0, -np.inf)):
        broken = values.copy()
        broken[place, 1] = value
        with pytest.raises(UserError, match="a has values that are NaN or infinite"):
            check_finite("a", broken[:, 1])


def test_directions_of_any_size_keep_their_digits_in_half_precision(tmp_path):
    """The size of a row is arbitrary: its length is the gain's."""
    rows = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    rows *= np.array([1, 1e-9, 1e-38, 1e9, 1e-4, 0], np.float32)[:, None, None]
    gain = np.ones((6, 1, 1), np.float32)
    write_state(tmp_path / "file", {"a.weight_g": gain, "a.weight_v": rows}, "float16")
    back = load_file(tmp_path / "file")["a.weight_v"].astype(np.float64)
    np.testing.assert_array_equal(back[0], rows[0].astype(np.float16))
    want, got = (
        part[:5] / np.sqrt(np.square(part[:5], dtype=np.float64).sum((1, 2), keepdims=True))
        for part in (rows, back)
    )
    np.testing.assert_allclose(got, want, atol=4e-4)
    assert not back[5].any()


def test_other_tensors_without_a_value_in_half_precision_are_named(tmp_path):
    taps = {"b.weight_g": np.ones((1, 1, 3), np.float32)}  # of another norm than that of rows
    for name, others in (("a.weight", {}), ("b.weight_v", taps)):
        small = {name: np.full((2, 4, 3), 1e-9, np.float32)}
        with pytest.warns(UserWarning, match=f"{name} has values up to 1e-09, all 0 in float16"):
            write_state(tmp_path / "file", small | others, "float16")
    with pytest.raises(UserError, match="a has values up to nan"):
        write_state(tmp_path / "file", {"a": np.full(3, np.nan, np.float32)}, "float16")


def test_a_write_that_fails_leaves_nothing_and_keeps_the_old_file(state, tmp_path):
    write_state(tmp_path / "file", state)
    before = (tmp_path / "file").read_bytes()

    def fail() -> np.ndarray:
        raise UserError("gone")

    broken = state | {"a": Stored((2,), np.dtype(np.float32), fail)}
    with pytest.raises(UserError, match="gone"):
        write_state(tmp_path / "file", broken)
    assert (tmp_path / "file").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_cut_off_is_named_with_its_tensor(state, tmp_path):
    path = tmp_path / "file"
    write_state(path, state)
    opened = open_safetensors(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(UserError, match="file is not a whole safetensors file"):
        open_safetensors(path)
    with pytest.raises(UserError, match=r"file was cut off: ü has [0-9]+ of 6 bytes"):
        np.asarray(opened["ü"])
    path.unlink()
    with pytest.raises(UserError, match=r"file: b\.weight cannot be read"):
        np.asarray(opened["b.weight"])


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 64, (8).to_bytes(8, "little") + b"{]"])
def test_what_is_no_safetensors_file_is_the_users_error(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="not a whole safetensors file") as error:
        open_safetensors(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_a_model_in_parts_is_one_state(state, tmp_path):
    first = dict(list(state.items())[:3])
    write_state(tmp_path / "one", first)
    write_state(tmp_path / "two", {name: w for name, w in state.items() if name not in first})
    part_of = {name: "one" if name in first else "two" for name in state}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": part_of}))
    opened = open_state(tmp_path, "model")
    for name, tensor in state.items():
        np.testing.assert_array_equal(np.asarray(opened[name]), tensor)
    index.write_text(json.dumps({"weight_map": part_of | {"lost": "one"}}))
    with pytest.raises(UserError, match="lost in one"):
        open_state(tmp_path, "model")


def test_pickled_checkpoints_need_torch_and_say_so(tmp_path, monkeypatch):
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs torch to be read: pip .* or give checkpoint\.safe"):
        open_state(tmp_path, "checkpoint")


class Trap:
    """A pickle of this class runs `print` when it is read."""

    def __reduce__(self):
        return print, ("the pickle ran",)


class TestWithTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_every_tensor_is_read(self, torch, state, tmp_path, zipped, monkeypatch):
        monkeypatch.setattr("sam_audio_jax.convert.tensors.MAPPED_BYTES", 16)
        tensors = {name: torch.from_numpy(w.copy()) for name, w in state.items()}
        tensors["brain"] = torch.arange(6).reshape(2, 3).to(torch.bfloat16)
        tensors["transposed"] = torch.arange(6.0).reshape(2, 3).T
        path = tmp_path / "checkpoint.pt"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        opened = open_state(tmp_path, "checkpoint")
        for name, tensor in tensors.items():
            assert opened[name].shape == tuple(tensor.shape)
            got = np.asarray(opened[name])
            assert got.dtype == opened[name].dtype
            want = tensor.float() if name == "brain" else tensor
            np.testing.assert_array_equal(got.astype(want.numpy().dtype), want.numpy())

    @pytest.mark.parametrize("zipped", [True, False])
    def test_nothing_in_a_file_can_run(self, torch, tmp_path, capsys, zipped):
        path = tmp_path / "checkpoint.pt"
        torch.save({"a": torch.zeros(1), "b": Trap()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match="holds more than tensors or is damaged") as error:
            open_torch(path)
        assert "\n" not in str(error.value)
        assert "the pickle ran" not in capsys.readouterr().out

    def test_broken_files_and_other_things_are_the_users_error(self, torch, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save({"a": torch.zeros(999)}, path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"checkpoint\.pt"):
            open_torch(path)
        path.write_bytes(b"not a pickle")
        with pytest.raises(UserError, match=r"checkpoint\.pt"):
            open_torch(path)
        torch.save([torch.zeros(1)], path)
        with pytest.raises(UserError, match="holds a list, not names with tensors"):
            open_torch(path)
        torch.save({"epoch": 3}, path)
        with pytest.raises(UserError, match="epoch is no tensor that can be read but int"):
            open_torch(path)
        path.write_bytes(pickle.dumps({"a": Trap()}))
        with pytest.raises(UserError, match=r"checkpoint\.pt"):
            open_torch(path)
