"""Audiobox Aesthetics against the reference's numbers, from waves to scores (`aesthetics/`)."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.convert.aesthetics import aesthetics_config, aesthetics_from_reference
from sam_audio_jax.encoders.wavlm import WavlmConfig
from sam_audio_jax.scorers.aesthetics import AXES, AestheticsConfig, AestheticsScorer

pytestmark = pytest.mark.golden
CONFIG = "_config.json"
TOLERANCE = 2e-4


def convolutions(text: str) -> tuple[tuple[int, int, int], ...]:
    """The reference's notation, `[(16,10,5)] + [(16,3,2)] * 4`, without evaluating it."""
    found = re.findall(r"\((\d+), ?(\d+), ?(\d+)\)\](?: \* (\d+))?", text)
    return tuple(tuple(map(int, sizes)) for *sizes, count in found for _ in range(int(count or 1)))


def config_of(stored: dict) -> AestheticsConfig:
    wavlm = WavlmConfig(
        convolutions=convolutions(stored["conv_feature_layers"]),
        width=stored["encoder_embed_dim"],
        depth=stored["encoder_layers"],
        heads=stored["encoder_attention_heads"],
        mlp=stored["encoder_ffn_embed_dim"],
        position_window=stored["conv_pos"],
        position_groups=stored["conv_pos_groups"],
        buckets=stored["num_buckets"],
        max_distance=stored["max_distance"],
    )
    heads = {"proj_num_layer": stored["proj_num_layer"], "proj_ln": stored["proj_ln"]}
    heads["nth_layer"] = stored["hidden_states_kept"]
    config = aesthetics_config(heads, stored["target_transform"], wavlm)
    return dataclasses.replace(
        config, sample_rate=stored["sample_rate"], window=stored["window_samples"]
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of the folder: its config, its inputs and outputs, its weights."""

    config: AestheticsConfig
    io: dict
    weights: dict

    @property
    def waves(self) -> list[np.ndarray]:
        names = sorted(n for n in self.io if n.startswith("clip_") and n != "clip_scores")
        return [self.io[name] for name in sorted(names, key=lambda n: int(n.split("_")[1]))]

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """All windows of all clips, and how many samples of each are sound."""
        size, rows, lengths = self.config.window, [], []
        for wave in self.waves:
            for start in range(0, len(wave), size):
                part = wave[start : start + size]
                rows.append(np.pad(part, (0, size - len(part))))
                lengths.append(len(part))
        return np.stack(rows), np.array(lengths, np.int32)


@pytest.fixture(scope="module")
def cases(fixtures_dir):
    folder, found = fixtures_dir / "aesthetics", []
    for path in sorted(folder.glob(f"*{CONFIG}")):
        stem = path.name.removesuffix(CONFIG)
        stored = json.loads(path.read_text())
        assert tuple(stored["axes_order_in_clip_scores"]) == AXES
        io, weights = (
            load_file(folder / f"{stem}_{kind}.safetensors") for kind in ("io", "weights")
        )
        case = Case(config_of(stored), io, weights)
        found.append((case, aesthetics_from_reference(weights, case.config)))
    assert found
    return found


def near(got, want, name, atol=TOLERANCE):
    assert got.shape == want.shape, name
    np.testing.assert_allclose(got, want, atol=atol, err_msg=name)


def _identity(state):
    return state


def _run(network, wave, lengths):
    states = network.wavlm.states(wave, lengths, _identity)
    valid = network.wavlm.valid_frames(lengths, wave.shape[1])
    return states, valid, network.raw(wave, lengths)


def test_every_state_and_head(cases):
    for case, network in cases:
        wave, lengths = case.windows()
        weights = lengths / case.config.window
        np.testing.assert_allclose(weights, case.io["window_weights"], rtol=1e-6)
        states, valid, raw = jax.jit(_run)(network, wave, lengths)
        np.testing.assert_array_equal(~valid, case.io["frame_is_padding"].astype(bool))
        near(states, case.io["hidden_states"], "hidden_states")
        for number, axis in enumerate(AXES):
            near(raw[:, number], case.io[f"raw.{axis}"], axis)


def test_scores_of_clips_of_other_lengths(cases):
    for case, network in cases:
        scorer = AestheticsScorer(network, windows=2)
        scores = scorer.score_waves(case.waves, case.config.sample_rate)
        near(scores, case.io["clip_scores"], "clip_scores")
