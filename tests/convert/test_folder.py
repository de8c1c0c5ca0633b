"""Model folders: exact both ways, every misfit named, whole or not at all."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.folder import load_folder, open_folder, save_folder
from sam_audio_jax.errors import UserError

FILES = ("checkpoint.safetensors", "t5/model.safetensors")


@pytest.fixture
def copy(reference, tmp_path):
    return shutil.copytree(reference, tmp_path / "copy")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_state(folder, change):
    state = load_file(folder / "checkpoint.safetensors")
    change(state)
    save_file(state, folder / "checkpoint.safetensors")


@pytest.mark.golden
def test_there_and_back_changes_no_bit(reference, loaded, tmp_path):
    save_folder(tmp_path / "new", *loaded)
    for name in FILES:
        want, got = load_file(reference / name), load_file(tmp_path / "new" / name)
        assert set(got) == set(want)
        for tensor in want:
            np.testing.assert_array_equal(got[tensor], want[tensor], err_msg=tensor)
    config = json.loads((reference / "config.json").read_text())
    saved = json.loads((tmp_path / "new" / "config.json").read_text())
    assert {key: saved[key] for key in config} == config


def test_what_is_read_is_held_by_the_network_alone(reference):
    codec = open_folder(reference).codec
    codec.read()
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(codec.table.abstract)))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


@pytest.mark.golden
def test_half_precision_halves_the_files(reference, loaded, tmp_path):
    save_folder(tmp_path / "new", *loaded, dtype="float16")
    name = FILES[0]
    assert (tmp_path / "new" / name).stat().st_size < 0.6 * (reference / name).stat().st_size
    _, prompted, _, _ = load_folder(tmp_path / "new")
    kernel = prompted.separator.project.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(kernel, loaded[1].separator.project.kernel[...], atol=1e-3)


@pytest.mark.golden
def test_our_settings_survive(loaded, tmp_path):
    codec, prompted, _, extra = loaded
    save_folder(tmp_path / "new", codec, prompted, "byt5", extra | {"sampler": {"steps": 4}})
    _, _, tokenizer, back = load_folder(tmp_path / "new")
    assert tokenizer == "byt5"
    assert back["sampler"] == {"steps": 4}


@pytest.mark.golden
def test_a_folder_of_a_newer_format_is_refused_and_one_without_a_number_is_the_first(
    loaded, tmp_path
):
    save_folder(tmp_path / "new", *loaded)
    ours = tmp_path / "new" / "sam_audio_jax.json"
    values = json.loads(ours.read_text())
    assert values["format"] == 1
    ours.write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(UserError, match=r"sam_audio_jax\.json has format 2, .* reads 1 to 1: "):
        load_folder(tmp_path / "new")
    del values["format"]
    ours.write_text(json.dumps(values))
    assert "format" not in load_folder(tmp_path / "new")[3]


@pytest.mark.golden
def test_export_moves_the_scale_of_latents_into_the_codec(loaded, tmp_path):
    codec, prompted, tokenizer, extra = loaded
    graph, state = nnx.split(codec)
    scaled: Codec = nnx.merge(graph, state)
    scaled.config = _with(codec.config, mean=0.3, std=1.7)
    save_folder(tmp_path / "kept", scaled, prompted, tokenizer, extra)
    save_folder(tmp_path / "folded", scaled, prompted, tokenizer, extra, fold=True)
    kept, folded = (load_folder(tmp_path / name)[0] for name in ("kept", "folded"))
    assert (kept.config.mean, kept.config.std) == (0.3, 1.7)
    assert (folded.config.mean, folded.config.std) == (0.0, 1.0)
    wave = jnp.sin(jnp.arange(4 * codec.config.hop) / 3.0)[None]
    latents, waves = round_trip(kept, wave)
    again, same = round_trip(folded, wave)
    np.testing.assert_allclose(again, latents, atol=1e-5)
    np.testing.assert_allclose(same, waves, atol=1e-5)


@jax.jit
def round_trip(codec, wave):
    latents = codec.encode(wave)
    return latents, codec.decode(latents)


def _with(config, **changes):
    return type(config)(**{**vars(config), **changes})


@pytest.mark.golden
def test_one_error_names_every_tensor_that_does_not_fit(copy):
    def change(state):
        del state["proj.bias"]
        state["transformer.layers.0.attention.wq.weight"] = np.zeros((3, 5), np.float32)
        state["transformer.surplus"] = np.zeros(1, np.float32)
        state["audio_codec.surplus"] = np.zeros(1, np.float32)
        state["vision_encoder.left_out"] = np.zeros(1, np.float32)

    edit_state(copy, change)
    with pytest.raises(UserError) as error:
        load_folder(copy)
    text = str(error.value)
    assert "missing proj.bias [" in text
    assert "transformer.layers.0.attention.wq.weight has shape [3, 5], not [" in text
    assert "unexpected transformer.surplus" in text
    assert "unexpected audio_codec.surplus" in text
    assert "left_out" not in text
    assert "\n" not in text


@pytest.mark.golden
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_chanels": 48}, "unknown key in_chanels"),
        ({"bottleneck_dim": 4, "finetune_transformer": {}}, "it is a judge, which scores"),
        ({"audio_tower": {}}, "it is an audio tower, a part of a model"),
        ({"in_channels": 47}, "in_channels=47 must be a multiple of 6"),
        ({"transformer": {"dims": 1}}, "unknown key transformer.dims"),
        ({"transformer": {"fc_bias": True, "out_channels": 16}}, "fc_bias=True is not supported"),
        ({"audio_codec": {"rate": 1}}, "unknown key audio_codec.rate"),
        ({"text_encoder": {"max_len": 5}}, "unknown key text_encoder.max_len, allowed are dim"),
        ({"text_encoder": {"max_length": 5}}, "text_encoder.max_length=5 is not supported"),
        ({"vision_encoder": {"normalise_feature": False}}, "vision_encoder.normalise_feature"),
    ],
)
def test_configs_that_do_not_fit_are_the_users_error(copy, changes, message):
    edit_config(copy, **changes)
    with pytest.raises(UserError, match=message):
        load_folder(copy)


@pytest.mark.golden
def test_broken_files_are_the_users_error(copy):
    (copy / "checkpoint.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_folder(copy)
    (copy / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match=r"there is none of checkpoint\.safetensors"):
        load_folder(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_folder(copy)


def test_no_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no model folder"):
        load_folder(tmp_path / "nothing")


@pytest.mark.golden
def test_nothing_is_overwritten_or_left_half_written(loaded, tmp_path):
    (tmp_path / "full" / "theirs").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        save_folder(tmp_path / "full", *loaded)
    codec, prompted, tokenizer, extra = loaded
    graph, state = nnx.split(prompted)
    huge = nnx.merge(graph, state)
    huge.separator.project.bias[...] = jnp.full(huge.separator.project.bias.shape, 1e6)
    with pytest.raises(UserError, match=r"proj\.bias has values up to 1e\+06, too large"):
        save_folder(tmp_path / "new", codec, huge, tokenizer, extra, dtype="float16")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "theirs"]
