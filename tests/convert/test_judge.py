"""The judge's names and shapes at full size, both published layouts, its folder, every misfit."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sam_audio_jax.convert import model_files
from sam_audio_jax.convert.judge import (
    TOKENIZER,
    judge_config,
    judge_rows,
    judge_table,
    load_judge,
    open_judge,
    save_judge,
    used,
)
from sam_audio_jax.convert.model_files import SHIPPED
from sam_audio_jax.convert.names import parameters
from sam_audio_jax.convert.pe_a_frame import wave_rows
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.judge import JudgeConfig

INVENTORY = (
    pathlib.Path(__file__).parents[1] / "golden" / "inventories" / "checkpoint_params_judge.json"
)
AUDIO = {
    "hidden_size": 1792,
    "intermediate_size": 4800,
    "num_hidden_layers": 28,
    "num_attention_heads": 14,
    "rope_theta": 500_000.0,  # of no effect
}
SCORING = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
}
LARGE_TEXT = {"hidden_size": 1024, "num_hidden_layers": 28}  # ModernBERT-large
RELEASED = {"transformer": AUDIO, "finetune_transformer": SCORING, "text_model": LARGE_TEXT}
OURS = {"format": 1, "mask_attention": True, "tokenizer": "byt5"}
PLAIN = {
    "encoder_hidden_size": 64,
    "downsampling_ratios": [2, 8, 10, 12],
    "codebook_dim": 128,
    "sampling_rate": 48_000,
}


@pytest.fixture
def folder(fixtures_dir, tmp_path):
    """A writable copy in the reference's layout."""
    source, model = fixtures_dir / "judge", tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text((source / "config.json").read_text())
    save_file(load_file(source / "weights.safetensors"), model / "model.safetensors")
    return model


def edit_config(folder, change):
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def test_names_and_shapes_at_full_size():
    listed = json.loads(INVENTORY.read_text())
    assert judge_config(RELEASED) == judge_config(RELEASED | {"dac_vae_encoder": PLAIN})
    config = judge_config(RELEASED)
    assert config == JudgeConfig()
    assert config.audio.theta == config.scoring.theta == 20_000
    abstract = {n: np.broadcast_to(np.float32(0), s) for n, s in listed["params"].items()}
    want = {name: tensor.shape for name, tensor in used(abstract, config).items()}
    table = judge_table(config)
    assert table.shapes() == want
    dead = set(listed["params"]) - set(want)
    assert {name.split(".")[0] for name in dead} == {"audio_codec", "text_model"}
    assert not [name for name in dead if name.startswith("audio_codec.encoder")]
    lost = sum(abstract[name].size for name in dead)
    counted = sum(v.size for v in parameters(table.abstract).values())
    assert counted + lost == listed["total_parameters"] == 1_533_804_616


@pytest.mark.golden
def test_there_and_back_changes_no_bit(folder, tmp_path):
    judge, tokenizer = load_judge(folder)
    assert tokenizer == TOKENIZER
    stored = load_file(folder / "model.safetensors")
    back = judge_table(judge.config).stored(judge)
    assert set(back) == set(used(stored, judge.config)) < set(stored)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, stored[name], err_msg=name)
    values = json.loads((folder / "config.json").read_text())
    config = judge_config(values, mask_attention=True)
    ours = nnx.merge(nnx.graphdef(judge_table(config).abstract), nnx.state(judge))
    (folder / "tokenizer.json").write_text("{}")
    save_judge(tmp_path / "saved", ours, str(folder), {"notes": "a test"})
    opened = open_judge(tmp_path / "saved")
    assert opened.table.abstract.config == config
    assert (opened.tokenizer, opened.extra["notes"]) == (str(tmp_path / "saved"), "a test")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(saved) == set(back)
    np.testing.assert_array_equal(saved["std"], stored["std"])
    with pytest.raises(UserError, match="exists"):
        save_judge(tmp_path / "saved", ours, "byt5")


@pytest.mark.golden
def test_the_command_copies_a_judge_with_our_settings(folder, tmp_path, command):
    (folder / "sam_audio_jax.json").write_text(json.dumps(OURS))
    assert command.main(["--from", str(folder), "--to", str(tmp_path / "to")]) == 0
    opened = open_judge(tmp_path / "to")
    assert opened.tokenizer == "byt5"
    assert opened.table.abstract.config.mask_attention
    stored = load_file(folder / "model.safetensors")
    copied = load_file(tmp_path / "to" / "model.safetensors")
    assert all(np.array_equal(copied[name], tensor) for name, tensor in stored.items())
    assert len(copied) == len(stored)


@pytest.mark.golden
def test_what_is_no_whole_judge_is_one_short_line(folder):
    with pytest.raises(UserError) as caught:
        open_judge(SHIPPED / "tiny")
    assert str(caught.value).endswith(
        "tiny holds no judge: its config.json has no finetune_transformer"
    )
    (folder / "sam_audio_jax.json").write_text(json.dumps(OURS | {"tokenizer": None}))
    with pytest.raises(UserError, match="lacks the files of its tokenizer"):
        open_judge(folder)


def plain_layout(folder) -> None:
    """Rewrites a folder in the layout of transformers, with the same kernels."""
    values = json.loads((folder / "config.json").read_text())
    codec = values.pop("audio_codec")
    values["dac_vae_encoder"] = {
        "encoder_hidden_size": codec["encoder_dim"],
        "downsampling_ratios": codec["encoder_rates"],
        "codebook_dim": codec["codebook_dim"],
        "codebook_size": codec["latent_dim"],
        "sampling_rate": codec["sample_rate"],
        "model_type": "dac",
    }
    state = load_file(folder / "model.safetensors")
    config = open_judge(folder).table.abstract.config
    names = {row.ours: row.theirs for row in judge_rows(config)}
    for row in wave_rows(len(config.encoder_rates), "dac_vae_encoder."):
        part, _, leaf = row.ours.rpartition(".")
        if leaf != "kernel":
            state[row.theirs] = state.pop(names[row.ours])
            continue
        gain = state.pop(names[f"{part}.scale"])
        kernel = state.pop(names[f"{part}.direction"])
        state[row.theirs] = gain * kernel / np.sqrt((kernel**2).sum((1, 2), keepdims=True))
    state["dac_vae_encoder.bottleneck.out_proj.bias"] = np.zeros(1, np.float32)  # not read
    state = {n: t for n, t in state.items() if not n.startswith("audio_codec.")}
    (folder / "config.json").write_text(json.dumps(values))
    save_file(state, folder / "model.safetensors")


@pytest.mark.golden
def test_the_layout_of_transformers_is_the_same_judge(folder):
    want, _ = load_judge(folder)
    plain_layout(folder)
    assert "dac_vae_encoder.encoder.block.0.res_unit1.conv1.weight" in open_judge(folder).state
    got, _ = load_judge(folder)
    assert got.config == want.config
    theirs, ours = parameters(want), parameters(got)
    for name, value in ours.items():
        part, _, leaf = name.rpartition(".")
        if leaf in ("scale", "direction") and f"{part}.direction" in ours:
            applied = []
            for side in (theirs, ours):
                direction = np.asarray(side[f"{part}.direction"][...])
                length = np.sqrt((direction**2).sum((0, 1)))
                applied.append(np.asarray(side[f"{part}.scale"][...]) / length * direction)
            np.testing.assert_allclose(*applied, rtol=1e-5, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(value[...], theirs[name][...], err_msg=name)
    edit_config(folder, lambda values: values["dac_vae_encoder"].update(codebook_size=7))
    with pytest.raises(UserError, match=r"dac_vae_encoder\.codebook_size=7 is not supported"):
        load_judge(folder)


@pytest.mark.golden
def test_a_dead_channel_of_the_layout_of_transformers_is_its_bias(folder):
    plain_layout(folder)
    state = load_file(folder / "model.safetensors")
    state["dac_vae_encoder.encoder.conv1.weight"][1] = 0
    state["dac_vae_encoder.encoder.conv1.weight"][2] = 1e-25
    save_file(state, folder / "model.safetensors")
    encoder = load_judge(folder)[0].wave_encoder.encoder
    kernel = np.asarray(encoder.stem.kernel())
    want = state["dac_vae_encoder.encoder.conv1.weight"].transpose(2, 1, 0)
    np.testing.assert_allclose(kernel, want, rtol=1e-5, atol=1e-20)


@pytest.mark.golden
def test_one_error_names_every_tensor_that_does_not_fit(folder):
    state = load_file(folder / "model.safetensors")
    del state["std"]
    state["text_model.layers.1.attn.Wqkv.weight"] = np.zeros((3, 5), np.float32)
    state["head.bias"] = np.zeros(4, np.float32)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        load_judge(folder)
    text = str(error.value)
    assert "missing std [4]" in text
    assert "text_model.layers.1.attn.Wqkv.weight has shape [3, 5], not [" in text
    assert "unexpected head.bias" in text
    assert "\n" not in text


@pytest.mark.golden
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_codec": {"rate": 1}}, r"unknown key audio_codec\.rate, allowed are sample_rate"),
        ({"audio_codec": {"encoder_rates": [3, 4]}}, "has 3: an odd rate"),
        ({"dac_vae_encoder": {}}, "both audio_codec and dac_vae_encoder"),
        ({"nth_text_layer": None}, "nth_text_layer=null"),
        ({"finetune_transformer": {"hidden_act": "gelu"}}, r"finetune_transformer\.hidden_act"),
        ({"transformer": {"hidden_size": 47}}, r"peav\.width=47 must be a multiple"),
        ({"bottleneck_dim": 0}, r"judge\.bottleneck=0 must be a whole number from 1"),
    ],
)
def test_settings_that_are_not_built_are_the_users_error(folder, changes, message):
    edit_config(folder, lambda values: values.update(changes))
    with pytest.raises(UserError, match=message):
        load_judge(folder)


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        ("sam-audio-judge", ("facebook/sam-audio-judge", "sam_audio")),
        ("facebook/sam-audio-judge@main", ("facebook/sam-audio-judge", "main")),
        ("someone/judge", ("someone/judge", None)),
    ],
)
def test_the_hub_is_asked_for_the_revision_that_the_reference_reads(monkeypatch, name, requested):
    seen = []

    def download(name, *, revision, **_):
        seen.append((name, revision))
        raise OSError("no network")

    monkeypatch.setattr(model_files.huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="no network"):
        load_judge(name)
    assert seen == [requested]
