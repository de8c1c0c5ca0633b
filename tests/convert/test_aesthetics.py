"""Names, shapes, settings and files of Audiobox Aesthetics, at tiny and at full size."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sam_audio_jax.convert import tensors
from sam_audio_jax.convert.aesthetics import (
    UNUSED,
    aesthetics_config,
    aesthetics_from_reference,
    aesthetics_rows,
    aesthetics_table,
    load_aesthetics,
    used,
)
from sam_audio_jax.encoders.wavlm import WavlmConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.aesthetics import AXES, Aesthetics, AestheticsConfig

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"
LISTED = json.loads((INVENTORIES / "checkpoint_params_aesthetics.json").read_text())
TINY = AestheticsConfig(
    wavlm=WavlmConfig(
        convolutions=((3, 4, 2), (5, 3, 2)),
        width=8,
        depth=2,
        heads=2,
        mlp=6,
        position_window=4,
        position_groups=2,
        buckets=8,
        max_distance=6,
    ),
    window=60,
    head_layers=3,
)


def random_state():
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
        for name, shape in aesthetics_table(TINY).shapes().items()
    }


def test_names_and_shapes_of_the_released_checkpoint():
    settings = LISTED["_config"]
    config = aesthetics_config(settings, settings["target_transform"])
    assert config == AestheticsConfig()
    ours = aesthetics_table(config).shapes()
    listed = {name: tuple(entry["shape"]) for name, entry in LISTED["tensors"].items()}
    assert len(listed) == 324
    assert set(listed) - set(ours) == set(UNUSED)
    blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in listed.items()}
    assert aesthetics_table(config).misfits(used(blank)) == []
    assert sum(np.prod(shape, dtype=int) for shape in listed.values()) == LISTED["_param_count"]


def test_every_row_names_a_parameter_and_none_is_left_out():
    model = nnx.eval_shape(lambda: Aesthetics(TINY, rngs=Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert sorted(row.ours for row in aesthetics_rows(TINY)) == sorted(paths)


def test_there_and_back_changes_no_bit():
    state = random_state()
    network = aesthetics_from_reference(state, TINY)
    back = aesthetics_table(TINY).stored(network)
    assert set(back) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_weight_norm_of_the_positions_is_over_all_axes_but_the_taps():
    state = random_state()
    name = "wavlm_model.encoder.pos_conv.0.weight"
    norms = np.linalg.norm(state[f"{name}_v"], axis=(0, 1))
    want = state[f"{name}_g"] * state[f"{name}_v"] / norms
    network = aesthetics_from_reference(state, TINY)
    np.testing.assert_allclose(network.wavlm.position.kernel().T, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"proj_ln": False}, r"heads\.proj_ln=False is not supported, only True"),
        ({"nth_layer": 12}, "nth_layer=12 is not supported, only 13"),
        ({"proj_num_layer": 0}, r"aesthetics\.head_layers=0 must be a whole number from 1"),
    ],
)
def test_settings_that_are_not_built_are_the_users_error(changed, message):
    settings = LISTED["_config"] | changed
    with pytest.raises(UserError, match=message):
        aesthetics_config(settings, settings["target_transform"])


def test_an_axis_without_statistics_is_the_users_error():
    with pytest.raises(UserError, match="target_transform lacks CU, PQ"):
        aesthetics_config({}, {axis: ratings()[axis] for axis in ("CE", "PC")})


def ratings():
    return {axis: {"mean": float(n), "std": 0.5} for n, axis in enumerate(AXES)}


def test_a_released_folder_is_read(tmp_path, monkeypatch):
    """The config has no sizes of WavLM: a file that is not of the released ones is refused."""
    settings = {"proj_num_layer": 3, "target_transform": ratings()}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(random_state() | {UNUSED[0]: np.zeros(8, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"post_extract_proj\.bias has shape"):
        load_aesthetics(str(tmp_path))
    monkeypatch.setattr("sam_audio_jax.convert.aesthetics.WavlmConfig", lambda: TINY.wavlm)
    network = load_aesthetics(str(tmp_path))
    assert network.config.mean == (0.0, 1.0, 2.0, 3.0)
    np.testing.assert_array_equal(
        network.heads[3].out.kernel[...], random_state()["proj_layer.PQ.6.weight"].T
    )


def test_the_older_pickle_nests_tensors_and_settings(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"read by torch alone")
    content = {"model_cfg": {"proj_ln": False}, "target_transform": ratings(), "state_dict": {}}
    monkeypatch.setattr(tensors, "_load_torch", lambda path, mapped: content)
    with pytest.raises(UserError, match="proj_ln=False is not supported"):
        load_aesthetics(str(path))
    content["model_cfg"] = {}
    with pytest.raises(UserError, match=r"missing wavlm_model\.feature_extractor"):
        load_aesthetics(str(path))


def test_a_pickle_is_read(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    inside = {f"model.{name}": torch.from_numpy(t) for name, t in random_state().items()}
    content = {"model_cfg": {"proj_num_layer": 3}, "target_transform": ratings()}
    torch.save(content | {"state_dict": inside}, tmp_path / "checkpoint.pt")
    monkeypatch.setattr("sam_audio_jax.convert.aesthetics.WavlmConfig", lambda: TINY.wavlm)
    network = load_aesthetics(str(tmp_path / "checkpoint.pt"))
    assert network.config.deviation == (0.5,) * 4
    np.testing.assert_array_equal(
        network.wavlm.project.bias[...], random_state()["wavlm_model.post_extract_proj.bias"]
    )
