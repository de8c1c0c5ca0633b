"""The span predictor's names and shapes at full size, its folder both ways, every misfit named."""

import fnmatch
import json
import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from sam_audio_jax.convert import model_files
from sam_audio_jax.convert.folder import open_folder
from sam_audio_jax.convert.names import parameters
from sam_audio_jax.convert.pe_a_frame import (
    TOKENIZER,
    load_span_predictor,
    span_predictor_config,
    span_predictor_table,
    used,
)
from sam_audio_jax.errors import UserError

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"
SIZES = {  # width, MLP, layers, heads; parameters: all, used for a pass from latents
    "small": (768, 2048, 12, 6, 513_484_866, 412_265_730),
    "base": (1024, 2752, 16, 8, 634_449_730, 533_230_594),
    "large": (1792, 4800, 28, 14, 1_530_373_186, 1_429_154_050),
}


@pytest.fixture
def folder(fixtures_dir, tmp_path):
    """A writable copy in the reference's layout."""
    source = fixtures_dir / "pe_a_frame"
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(load_file(source / "weights.safetensors"), tmp_path / "model.safetensors")
    return tmp_path


def edit_config(folder, change):
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def published(size: str) -> dict:
    width, mlp, layers, heads, *_ = SIZES[size]
    transformer = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "rope_theta": 500_000.0,  # of no effect
    }
    return {"audio_model": {"audio_transformer": transformer}}


@pytest.mark.parametrize("size", list(SIZES))
def test_names_and_shapes_at_full_size(size):
    listed = json.loads((INVENTORIES / f"checkpoint_params_pe_a_frame_{size}.json").read_text())[
        "params"
    ]
    config = span_predictor_config(published(size), waves=True)
    assert config.audio.theta == 20_000
    abstract = {n: np.broadcast_to(np.float32(0), shape) for n, shape in listed.items()}
    want = {name: tensor.shape for name, tensor in used(abstract, config).items()}
    assert span_predictor_table(config).shapes() == want
    dead = set(listed) - set(want)
    assert {name.rsplit(".", 2)[0] for name in dead if not name.startswith("text_model.")} == {
        "audio_model.dac_vae_encoder.bottleneck"
    }
    sizes = {name: int(np.prod(shape)) for name, shape in listed.items()}
    for_latents = span_predictor_table(span_predictor_config(published(size)))
    counted = [v.size for v in parameters(nnx.eval_shape(for_latents.make)).values()]
    assert (sum(sizes.values()), sum(counted)) == SIZES[size][4:]


@pytest.mark.golden
def test_there_and_back_changes_no_bit(folder):
    predictor, tokenizer = load_span_predictor(folder, waves=True)
    assert tokenizer == TOKENIZER
    stored = load_file(folder / "model.safetensors")
    back = span_predictor_table(predictor.config).stored(predictor)
    assert set(back) == set(used(stored, predictor.config)) < set(stored)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, stored[name], err_msg=name)


@pytest.mark.golden
def test_a_file_without_unused_layers_is_enough(folder):
    stored = load_file(folder / "model.safetensors")
    kept = used(stored, span_predictor_config(json.loads((folder / "config.json").read_text())))
    assert len(kept) < len(stored)
    (folder / "model.safetensors").unlink()
    save_file(kept, folder / "checkpoint.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    layers = json.loads((folder / "config.json").read_text())["nth_text_layer"]
    edit_config(folder, lambda values: values["text_model"].update(num_hidden_layers=layers))
    predictor, tokenizer = load_span_predictor(folder)
    assert predictor.wave_encoder is None
    assert tokenizer == str(folder)
    with pytest.raises(UserError, match=r"missing audio_model\.dac_vae_encoder\.encoder\.conv1"):
        load_span_predictor(folder, waves=True)


@pytest.mark.golden
def test_one_error_names_every_tensor_that_does_not_fit(folder):
    state = load_file(folder / "model.safetensors")
    del state["logit_bias"]
    state["text_model.layers.1.attn.Wqkv.weight"] = np.zeros((3, 5), np.float32)
    state["audio_head.surplus"] = np.zeros(1, np.float32)
    state["text_model.layers.0.attn_norm.weight"] = np.zeros(1, np.float32)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        load_span_predictor(folder)
    text = str(error.value)
    assert "missing logit_bias [1]" in text
    assert "text_model.layers.1.attn.Wqkv.weight has shape [3, 5], not [" in text
    assert "unexpected audio_head.surplus" in text
    assert "unexpected text_model.layers.0.attn_norm.weight" in text
    assert "\n" not in text


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [np.int8, np.bool_])
def test_tensors_of_whole_numbers_are_no_weights(folder, dtype):
    """Quantised ones mean nothing without their scales."""
    state = load_file(folder / "model.safetensors")
    name = "audio_model.audio_transformer.layers.0.mlp.gate_proj.weight"
    save_file(
        state | {name: np.round(state[name] * 100).astype(dtype)}, folder / "model.safetensors"
    )
    with pytest.raises(UserError, match=f"{name} is {np.dtype(dtype)}, not one of float32"):
        load_span_predictor(folder)


def version_5(text: dict) -> None:
    """The same text model as transformers 5 writes it."""
    every = text.pop("global_attn_every_n_layers")
    kinds = ("full_attention", "sliding_attention")
    text["layer_types"] = [kinds[i % every > 0] for i in range(text["num_hidden_layers"])]
    thetas = (text.pop("global_rope_theta"), text.pop("local_rope_theta"))
    text["rope_parameters"] = {
        kind: {"rope_type": "default", "rope_theta": theta}
        for kind, theta in zip(kinds, thetas, strict=True)
    }


@pytest.mark.golden
def test_configs_of_both_versions_of_transformers_are_one(fixtures_dir):
    values = json.loads((fixtures_dir / "pe_a_frame" / "config.json").read_text())
    values["text_model"] |= {"global_rope_theta": 123.0, "local_rope_theta": 45.0}
    before = span_predictor_config(values)
    version_5(values["text_model"])
    assert span_predictor_config(values) == before
    assert (before.text.global_theta, before.text.local_theta) == (123.0, 45.0)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("text_model", {"norm_bias": True}, r"text_model\.norm_bias=True is not supported"),
        ("text_model", {"num_hidden_layers": 2}, "nth_text_layer=3 must be 1 to 2"),
        ("text_model", {"layer_types": ["sliding_attention"] * 5}, "must repeat one global"),
        ("text_model", {"layer_types": []}, "describes no network: IndexError"),
        ("text_model", {"num_hidden_layers": None}, "describes no network: TypeError"),
        ("text_model", {"rope_parameters": {"rope_theta": 9.0}}, r"rope_parameters\.rope_theta is"),
        ("text_model", {"rope_scaling": {"factor": 4.0}}, r"text_model\.rope_scaling is not"),
        (
            "text_model",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0}}},
            r"text_model\.rope_parameters\.full_attention\.factor is not supported",
        ),
        ("audio_transformer", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("audio_transformer", {"num_key_value_heads": 1}, "num_key_value_heads=1"),
        ("dac_vae_encoder", {"codebook_size": 7}, "codebook_size=7 is not supported"),
    ],
)
def test_settings_that_are_not_built_are_the_users_error(folder, section, changes, message):
    def change(values):
        values["nth_text_layer"] = 3
        (values if section in values else values["audio_model"])[section].update(changes)

    edit_config(folder, change)
    with pytest.raises(UserError, match=message):
        load_span_predictor(folder)


def test_the_hub_is_asked_for_the_parts_of_models_too(tmp_path, monkeypatch):
    wanted = []

    def download(name, *, allow_patterns, **_):
        wanted.append((name, allow_patterns))
        raise OSError("no network")

    monkeypatch.setattr(model_files.huggingface_hub, "snapshot_download", download)
    for load, stems in (
        (load_span_predictor, ("checkpoint", "model")),
        (open_folder, ["checkpoint"]),
    ):
        with pytest.raises(UserError, match="no network"):
            load("someone/model")
        name, patterns = wanted.pop()
        endings = (".safetensors", ".safetensors.index.json", "-00001-of-00002.safetensors", ".pt")
        for file in (stem + ending for stem in stems for ending in endings):
            assert any(fnmatch.fnmatch(file, pattern) for pattern in patterns), (name, file)


def test_no_folder_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no model folder"):
        load_span_predictor(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no file .*config\.json"):
        load_span_predictor(tmp_path)
