"""PANNs' Cnn14 against the reference's numbers, from the wave to both heads (`panns/`)."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.convert.cnn14 import FILTERS, cnn14_from_reference
from sam_audio_jax.scorers.cnn14 import Cnn14Config

pytestmark = pytest.mark.golden
CONFIG = "_config.json"


def config_of(stored: dict) -> Cnn14Config:
    return Cnn14Config(
        sample_rate=stored["sample_rate"],
        window=stored["window"],
        hop=stored["hop"],
        mels=stored["mel_bins"],
        low_hz=float(stored["fmin"]),
        high_hz=float(stored["fmax"]),
        widths=tuple(stored["widths"]),
        classes=stored["classes"],
        norm_eps=stored["bn_eps"],
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of the folder: its stored config, its inputs and outputs, its weights."""

    stored: dict
    io: dict
    weights: dict

    def network(self, **changes):
        config = dataclasses.replace(config_of(self.stored), **changes)
        return cnn14_from_reference(self.weights, config)


@pytest.fixture(scope="module")
def cases(fixtures_dir):
    """Every network of the folder."""
    folder = fixtures_dir / "panns"
    by_name = {}
    for path in sorted(folder.glob(f"*{CONFIG}")):
        stem = path.name.removesuffix(CONFIG)
        io = jax.tree.map(jnp.asarray, load_file(folder / f"{stem}_io.safetensors"))
        weights = load_file(folder / f"{stem}_weights.safetensors")
        by_name[stem] = Case(json.loads(path.read_text()), io, weights)
    assert by_name
    return by_name


def near(got, want, name, atol=1e-4):
    assert got.shape == want.shape, name
    np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5, err_msg=name)


def compare(got, want, compared):
    for name, values in got.items():
        if name in want:
            near(values, want[name], name, atol=1e-3 if name.endswith("log_mel") else 1e-4)
            compared.add(name)


@jax.jit
def run(network, wave):
    """Everything between wave and heads, under the fixture's names."""
    log_mel = network.log_mel(wave)
    states = {"log_mel": log_mel, "bn0": network.norm(log_mel)}
    x = states["bn0"][..., None]
    for number, block in enumerate(network.blocks, start=1):
        x = block(x)
        states[f"block_{number}"] = x.transpose(0, 3, 1, 2)
    trunk = network.trunk(log_mel)
    tags, events = network.tag(trunk), network.detect(trunk, log_mel.shape[1])
    return states | {
        "trunk": trunk.swapaxes(1, 2),
        "tagging.embedding": tags.embedding,
        "tagging.clipwise": tags.probabilities,
        "detection.segment_embedding": events.embedding,
        "detection.segmentwise": events.segments,
        "detection.framewise": events.frames,
        "detection.clipwise": events.clip,
    }


def test_filter_bank(cases):
    for case in cases.values():
        config = config_of(case.stored)
        ours = mel_filters(
            config.sample_rate, config.window, config.mels, config.low_hz, config.high_hz
        )
        near(ours, case.io["mel_filterbank"], FILTERS, atol=1e-8)


def test_every_activation_from_wave_to_heads(cases):
    for case in cases.values():
        network, compared = case.network(), {"wave", "mel_filterbank"}
        wave = case.io["wave"]
        compare(run(network, wave), case.io, compared)
        short = wave[:, : case.stored["short_case_samples"]]
        shortened = {f"short.{name}": value for name, value in run(network, short).items()}
        compare(shortened, case.io, compared)
        assert compared == set(case.io)
        segments = network.trunk(network.log_mel(wave)).shape[1]
        assert segments == case.stored["segments"]


def test_features_are_the_detection_head_of_the_resampled_wave(cases):
    for case in cases.values():
        network, rate = case.network(), case.stored["sample_rate"]
        features = jax.jit(network.features, static_argnames=("sample_rate", "tensor"))
        want = case.io["detection.segment_embedding"]
        near(features(case.io["wave"], rate), want, "features")
        trunk = features(case.io["wave"], rate, tensor="trunk")
        near(trunk.swapaxes(1, 2), case.io["trunk"], "trunk")


def test_bfloat16_is_close(cases):
    for case in cases.values():
        low, rate = case.network(dtype="bfloat16"), case.stored["sample_rate"]
        got = jax.jit(low.features, static_argnums=1)(case.io["wave"], rate)
        want = case.io["detection.segment_embedding"]
        assert got.dtype == jnp.float32
        assert np.abs(got - want).max() < 0.05 * np.abs(want).max()
        assert np.abs(got - want).max() > 0
