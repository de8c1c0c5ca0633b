"""Names, shapes and files of ImageBind's audio and vision towers, at tiny and at full size."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from sam_audio_jax.convert import tensors
from sam_audio_jax.convert.imagebind import (
    LICENCE,
    imagebind_rows,
    imagebind_table,
    load_imagebind,
    used,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.imagebind import ImageBind, ImageBindConfig
from tests.scorers.tiny_imagebind import TINY, random_state

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"
GAIN = "modality_postprocessors.audio.1.log_logit_scale"
OTHERS = (
    "modality_preprocessors.text.pos_embed",
    "modality_trunks.depth.blocks.0.attn.bias_k",
    "modality_heads.thermal.0.weight",
    "modality_postprocessors.imu.1.log_logit_scale",
)


def test_names_and_shapes_of_the_released_checkpoint():
    listed = json.loads((INVENTORIES / "checkpoint_params_imagebind_av.json").read_text())
    state = {
        name: np.broadcast_to(np.float32(0), entry["shape"])
        for name, entry in listed["tensors"].items()
    }
    table = imagebind_table(ImageBindConfig())
    assert table.misfits(used(state)) == []
    assert set(state) - set(table.shapes()) == {GAIN}
    learned = [name for name, entry in listed["tensors"].items() if entry["kind"] == "param"]
    sizes = [np.prod(table.shapes()[name], dtype=int) for name in learned]
    assert sum(sizes) == listed["_av_param_count"]


def test_every_row_names_a_parameter_and_none_is_left_out():
    model = nnx.eval_shape(lambda: ImageBind(TINY, rngs=Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert sorted({row.ours for row in imagebind_rows(TINY)}) == sorted(paths)


def test_a_file_with_other_modalities_is_read_and_its_licence_named(tmp_path):
    state = random_state()
    more = dict.fromkeys((GAIN, *OTHERS), np.zeros(3, np.float32))
    save_file(state | more, tmp_path / "imagebind.safetensors")
    with pytest.warns(UserWarning, match="CC BY-NC-SA 4.0: for non-commercial use only"):
        network = load_imagebind(str(tmp_path / "imagebind.safetensors"), TINY)
    assert "\n" not in LICENCE
    back = imagebind_table(TINY).stored(network)
    assert set(back) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_files_that_do_not_fit_are_the_users_error(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no ImageBind checkpoint at gone\.pth"):
        load_imagebind("gone.pth", TINY)
    path = tmp_path / "imagebind_huge.pth"
    path.write_bytes(b"read by torch alone")
    monkeypatch.setattr(tensors, "_load_torch", lambda path, mapped: {})
    with pytest.raises(UserError, match=r"missing modality_preprocessors\.vision\.rgbt_stem"):
        load_imagebind(str(path), TINY)


def test_a_pickle_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    path, state = tmp_path / "imagebind_huge.pth", random_state()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in state.items()}, path)
    with pytest.warns(UserWarning, match="non-commercial"):
        network = load_imagebind(str(path), TINY)
    kernel = network.audio.project.kernel[...]
    np.testing.assert_array_equal(kernel, state["modality_heads.audio.2.weight"].T)
