"""The judge against every tensor of the reference (`judge/io_*.safetensors`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.convert.judge import load_judge
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers.judge import AXES, Judge, JudgeScores, mean_of_frames
from tests.peav_states import peav_states

HIDDEN = 2e-5  # times a tensor's largest absolute value
SCORES = 2e-4  # absolute


@pytest.fixture(scope="module")
def folder(fixtures_dir):
    return fixtures_dir.resolve() / "judge"


@pytest.fixture(scope="module")
def judge(folder, tmp_path_factory) -> Judge:
    model = tmp_path_factory.mktemp("judge")
    (model / "config.json").symlink_to(folder / "config.json")
    (model / "model.safetensors").symlink_to(folder / "weights.safetensors")
    return load_judge(model)[0]


@pytest.fixture(scope="module")
def cases(folder) -> dict[str, dict[str, np.ndarray]]:
    stored = {p.stem.removeprefix("io_"): load_file(p) for p in sorted(folder.glob("io_*"))}
    assert stored
    return stored


def inputs(judge: Judge, stored: dict) -> tuple[np.ndarray, ...]:
    """Returns waves, tokens and the mask of frames; without a mask all are valid."""
    waves = stored["input_values"][:, 0], stored["separated_values"][:, 0]
    mask = stored.get("padding_mask", np.ones(waves[0].shape, bool))
    tokens = stored["input_ids"].astype(np.int32), stored["attention_mask"].astype(bool)
    return *waves, *tokens, mask[:, :: judge.config.hop]


def all_states(judge: Judge, mixture, separated, ids, mask, valid) -> dict:
    """Returns what a fixture holds besides its inputs."""
    latents = judge.latents(jnp.concatenate([mixture, separated]))
    states = {"codec_features": jnp.swapaxes(latents, 1, 2), "data_proj": judge.project(latents)}
    audio = peav_states(judge.audio, states["data_proj"], None)
    states |= {f"transformer.{name}": state for name, state in audio.items()}
    mixture, separated = jnp.split(audio["output"][:, 1:], 2)
    states["text_proj1"] = judge.widen_text(judge.text(ids, mask)[:, 0])
    states["text_proj2"] = judge.narrow_text(states["text_proj1"])
    states["text_layer_norm"] = text = judge.text_norm(states["text_proj2"])
    sounds = judge.join_sounds(jnp.concatenate([separated, mixture], axis=-1))
    repeated = jnp.broadcast_to(text[:, None], sounds.shape)
    joined = judge.join_text(jnp.concatenate([sounds, repeated], axis=-1))
    states |= {"cat_audio_proj": sounds, "proj_audio_and_text": joined}
    states["finetune_data_proj"] = judge.scoring_in(joined)
    scoring = peav_states(judge.scoring, states["finetune_data_proj"], None)
    states |= {f"finetune_transformer.{name}": state for name, state in scoring.items()}
    states["head"] = judge.head(scoring["output"][:, 1:])
    return states | judge.on_scale(mean_of_frames(states["head"], valid))._asdict()


def near(got, want, name, case):
    atol = SCORES if name in AXES else HIDDEN * np.abs(want).max()
    want = want[:, 0] if name in AXES else want
    np.testing.assert_allclose(got, want, atol=atol, rtol=0, err_msg=f"{case} {name}")


@pytest.mark.golden
def test_every_hidden_state_and_score_of_batches(judge, cases):
    compare_states(judge, of_items(cases, single=False))


@pytest.mark.long
@pytest.mark.golden
def test_every_hidden_state_and_score_of_single_items(judge, cases):
    compare_states(judge, of_items(cases, single=True))


def of_items(cases, *, single):
    """The cases of one item, or those of several; which of them there are is up to the fixtures."""
    found = {name: io for name, io in cases.items() if (len(io["input_ids"]) == 1) == single}
    if not found:
        pytest.skip("not in these fixtures")
    return found


def compare_states(judge, cases):
    run = jax.jit(lambda arrays: all_states(judge, *arrays))
    unnamed = {"input_values", "separated_values", "input_ids", "attention_mask", "padding_mask"}
    for case, stored in cases.items():
        states = run(inputs(judge, stored))
        assert set(states) == set(stored) - unnamed
        for name, state in states.items():
            near(state, stored[name], name, case)


@pytest.mark.golden
def test_one_call_scores_a_single_item(judge, cases):
    for case, stored in of_items(cases, single=True).items():
        scores = Compiled(judge)(_scores, *inputs(judge, stored))
        for name in AXES:
            near(getattr(scores, name), stored[name], name, case)


def _scores(judge: Judge, *arrays) -> JudgeScores:
    *pair, valid = arrays
    return judge(*pair, valid=valid)


@pytest.mark.golden
def test_the_hop_is_that_of_the_config(folder, judge):
    assert judge.config.hop == json.loads((folder / "config.json").read_text())["hop_length"]
