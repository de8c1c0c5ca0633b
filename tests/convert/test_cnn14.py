"""Names, shapes and files of PANNs' Cnn14, at tiny and at full size."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sam_audio_jax.convert import tensors
from sam_audio_jax.convert.cnn14 import (
    CONSTANTS,
    COUNTER,
    FILTERS,
    IMAGINARY,
    REAL,
    cnn14_from_reference,
    cnn14_rows,
    cnn14_table,
    filters,
    load_cnn14,
    used,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.spectral import dft
from sam_audio_jax.scorers.cnn14 import Cnn14, Cnn14Config

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"
TINY = Cnn14Config(
    sample_rate=800,
    window=64,
    hop=8,
    mels=8,
    low_hz=20.0,
    high_hz=400.0,
    widths=(2, 3, 4),
    classes=5,
)


def random_state():
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
        for name, shape in cnn14_table(TINY).shapes().items()
    }


def published(network):
    """The tensors of a whole checkpoint: with constants of the front end, and counters."""
    config = network.config
    state = {name: np.asarray(t) for name, t in cnn14_table(config).stored(network).items()}
    real, imaginary = np.split(dft(config.window).T[:, None], 2)
    constants = {REAL: real, IMAGINARY: imaginary, FILTERS: filters(config)}
    ends = ("running_mean", COUNTER)
    counters = {
        name.replace(*ends): np.array(0, np.int64) for name in state if name.endswith(ends[0])
    }
    return state | constants | counters


def test_names_and_shapes_of_the_published_checkpoints():
    listed = json.loads((INVENTORIES / "checkpoint_params_panns_cnn14.json").read_text())
    state = {
        name: np.broadcast_to(np.zeros((), entry["dtype"]), entry["shape"])
        for name, entry in listed["tensors"].items()
    }
    ours = cnn14_table(Cnn14Config()).shapes()
    assert ours == {name: tensor.shape for name, tensor in used(state).items()}
    assert sorted(CONSTANTS) == sorted(listed["_frozen_front_end_params"])
    counters = [name for name in state if name.endswith(COUNTER)]
    assert set(state) == set(ours) | set(CONSTANTS) | set(counters)
    learned = [n for n, e in listed["tensors"].items() if e["kind"] == "param"]
    size = sum(np.prod(ours[name], dtype=int) for name in learned if name in ours)
    assert size == listed["_trainable_param_count"]


def test_every_row_names_a_parameter_and_none_is_left_out():
    model = nnx.eval_shape(lambda: Cnn14(TINY, rngs=Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert sorted(row.ours for row in cnn14_rows(TINY)) == sorted(paths)


def test_there_and_back_changes_no_bit_and_gives_a_whole_checkpoint():
    state = random_state()
    back = published(cnn14_from_reference(state, TINY))
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
    assert back["spectrogram_extractor.stft.conv_imag.weight"].shape == (33, 1, 64)
    assert back["conv_block3.bn2.num_batches_tracked"].dtype == np.int64
    assert set(used(back)) == set(state)
    again = published(cnn14_from_reference(back, TINY))
    assert set(again) == set(back)


def test_a_checkpoint_that_does_not_fit_is_the_users_error():
    state = published(cnn14_from_reference(random_state(), TINY))
    wrong = state | {FILTERS: 1.01 * state[FILTERS]}
    with pytest.raises(UserError, match="than 8 bands of 20 to 400 Hz at 800 Hz"):
        cnn14_from_reference(wrong, TINY)
    del state["fc1.bias"]
    with pytest.raises(UserError, match=r"missing fc1\.bias \[4\]"):
        cnn14_from_reference(state, TINY)


def test_files(tmp_path):
    state = random_state()
    save_file(state, tmp_path / "cnn14.safetensors")
    network = load_cnn14(str(tmp_path / "cnn14.safetensors"), TINY)
    np.testing.assert_array_equal(network.embed.kernel[...], state["fc1.weight"].T)
    with pytest.raises(UserError, match="no Cnn14 checkpoint at gone"):
        load_cnn14("gone.pth", TINY)


def test_tensors_of_a_pickle_are_under_model(tmp_path, monkeypatch):
    path = tmp_path / "cnn14.pth"
    path.write_bytes(b"read by torch alone")
    monkeypatch.setattr(tensors, "_load_torch", lambda path, mapped: {"model": {}, "iteration": 3})
    with pytest.raises(UserError, match=r"missing bn0\.weight"):
        load_cnn14(str(path), TINY)
    monkeypatch.setattr(tensors, "_load_torch", lambda path, mapped: {"state": {}})
    with pytest.raises(UserError, match="holds no tensors under 'model'"):
        load_cnn14(str(path), TINY)


def test_a_pickle_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = random_state()
    inside = {name: torch.from_numpy(tensor) for name, tensor in state.items()}
    torch.save({"iteration": 3, "model": inside}, tmp_path / "cnn14.pth")
    network = load_cnn14(str(tmp_path / "cnn14.pth"), TINY)
    np.testing.assert_array_equal(network.embed.kernel[...], state["fc1.weight"].T)
