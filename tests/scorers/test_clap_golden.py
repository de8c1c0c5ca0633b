"""LAION's CLAP against the reference's numbers, from the wave and the tokens to the cosine."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.convert.clap import clap_from_reference
from sam_audio_jax.encoders.roberta import RobertaConfig
from sam_audio_jax.scorers import front_end
from sam_audio_jax.scorers.clap import ClapConfig, fit, quantise
from sam_audio_jax.scorers.htsat import HtsatConfig

pytestmark = pytest.mark.golden
CONFIG = "_config.json"
LAYOUTS = ("laion", "transformers")


def config_of(stored: dict) -> ClapConfig:
    audio, text = stored["audio"], stored["text"]
    assert audio["patch_stride"] == [audio["patch_size"]] * 2
    assert (audio["hidden_act"], text["hidden_act"]) == ("gelu", "gelu")
    assert stored["projection_hidden_act"] == "relu"
    tower = HtsatConfig(
        mels=audio["num_mel_bins"],
        image=audio["spec_size"],
        patch=audio["patch_size"],
        width=audio["patch_embeds_hidden_size"],
        depths=tuple(audio["depths"]),
        heads=tuple(audio["num_attention_heads"]),
        window=audio["window_size"],
        mlp_ratio=int(audio["mlp_ratio"]),
        eps=audio["layer_norm_eps"],
    )
    assert tower.widths[-1] == audio["hidden_size"]
    roberta = RobertaConfig(
        vocab_size=text["vocab_size"],
        width=text["hidden_size"],
        depth=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        mlp=text["intermediate_size"],
        positions=text["max_position_embeddings"],
        padding_id=text["pad_token_id"],
        eps=text["layer_norm_eps"],
    )
    return ClapConfig(
        audio=tower,
        text=roberta,
        embedding=stored["projection_dim"],
        samples=480 * (tower.frames - 1),
        tokens=min(77, roberta.longest),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of the folder: its stored config, its inputs and outputs, its weights."""

    stored: dict
    io: dict
    weights: dict

    def network(self, layout="laion"):
        return clap_from_reference(self.weights[layout], config_of(self.stored))


@pytest.fixture(scope="module")
def cases(fixtures_dir):
    """Every network of the folder."""
    folder = fixtures_dir / "clap"
    by_name = {}
    for path in sorted(folder.glob(f"*{CONFIG}")):
        stem = path.name.removesuffix(CONFIG)
        io = load_file(folder / f"{stem}_io.safetensors")
        weights = {
            layout: load_file(folder / f"{stem}_weights_{layout}_names.safetensors")
            for layout in LAYOUTS
        }
        by_name[stem] = Case(json.loads(path.read_text()), io, weights)
    assert by_name
    return by_name


def near(got, want, name, atol=1e-4):
    assert got.shape == want.shape, name
    np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5, err_msg=name)


@jax.jit
def run_audio(network, log_mel):
    """Everything between log-mel and embedding, under the fixture's names."""
    tower = network.audio
    states = {"image": tower.image(log_mel)}
    x = states["patch_embed"] = tower.embed_patches(states["image"])
    for stage in range(len(tower.config.depths)):
        x = states[f"stage_{stage}"] = tower.run_stage(stage, x)
    states["audio_pooled"] = tower.pool(x)
    states["audio_embeds"] = network.audio_projection(states["audio_pooled"])
    return states


@jax.jit
def run_text(network, ids, mask):
    """Everything between tokens and embedding, under the fixture's names."""
    hidden = network.text(ids, mask)
    pooled = network.text.pooled(hidden)
    embedded = network.text_projection(pooled)
    return {"text_last_hidden": hidden, "text_pooled": pooled, "text_embeds": embedded}


def test_every_activation_of_both_towers(cases):
    for case in cases.values():
        network, io = case.network(), case.io
        states = run_audio(network, io["input_features"][:, 0])
        for name in list(states):
            if name == "image":
                states[name] = states[name][:, None]
            elif states[name].ndim == 4:
                batch, side, _, width = states[name].shape
                states[name] = states[name].reshape(batch, side**2, width)
        states |= run_text(network, io["input_ids"], io["attention_mask"].astype(bool))
        states["similarity"] = states["audio_embeds"] @ states["text_embeds"].T
        for name, values in states.items():
            near(values, io[name], name)
        inputs = {"input_features", "input_ids", "attention_mask"}
        assert set(states) | inputs == set(io)


def test_both_layouts_are_one_network(cases):
    for case in cases.values():
        one, other = (jax.tree.leaves(case.network(layout)) for layout in LAYOUTS)
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def prepare(stored, filters, size):
    """The front end to the log-mel spectrogram, compiled."""

    @jax.jit
    def run(wave, lengths, offsets):
        quantised = quantise(wave)
        fitted = fit(quantised, lengths, offsets, size)
        log_mel = front_end.log_mel(fitted, stored["n_fft"], stored["hop"], filters)
        return quantised, fitted, log_mel

    return run


def test_waves_to_log_mels(fixtures_dir):
    folder = fixtures_dir / "clap"
    for path in sorted(folder.glob("*frontend.json")):
        stored, io = json.loads(path.read_text()), load_file(path.with_suffix(".safetensors"))
        filters = mel_filters(
            stored["sample_rate"],
            stored["n_fft"],
            stored["mel_bins"],
            float(stored["fmin"]),
            float(stored["fmax"]),
        )
        near(filters, io["mel_filterbank"], "mel_filterbank", atol=1e-8)
        assert stored["cases"]
        for name, case in stored["cases"].items():
            wave = io[f"{name}.wave"]
            run = prepare(stored, filters, case["max_len"])
            lengths, offsets = np.array([len(wave)]), np.array([case["offset"] or 0])
            quantised, fitted, log_mel = run(wave[None], lengths, offsets)
            whole = np.rint(np.asarray(quantised[0], np.float64) * 32_767)
            np.testing.assert_array_equal(whole, io[f"{name}.int16"])
            if f"{name}.model_input" in io:  # left out where it would be large
                near(fitted[0], io[f"{name}.model_input"], name, atol=1e-7)
            assert log_mel.shape[1] == case["frames"]
            near(log_mel[0], io[f"{name}.log_mel"], name, atol=1e-3)
