"""The judge as a scorer: the plain pairing of each candidate, windows, what is refused."""

import dataclasses
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.convert.judge import judge_config
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_object
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.judge import AXES, Judge
from sam_audio_jax.scorers.judge_inputs import judge_inputs
from sam_audio_jax.scorers.judge_scorer import JudgeScorer, JudgeScoring
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests import tiny
from tests.children import environment

HOP, RATE = tiny.JUDGE.hop, tiny.JUDGE.sample_rate
WINDOW = 6  # frames
LENGTHS = (WINDOW * HOP - 3, WINDOW * HOP, 3 * WINDOW * HOP + HOP + 5)  # samples
CANDIDATES = 2
TEXTS = ("dog barking", "rain", "dog barking")
PROMPTS = [PromptView(text=text) for text in TEXTS]


@pytest.fixture(scope="module")
def judge() -> Judge:
    network = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    network.mean[...], network.std[...] = jnp.array([3.0, 2, 4, 1]), jnp.array([1.0, 0.5, 2, 1])
    return network


@pytest.fixture(scope="module")
def scorer(judge) -> JudgeScorer:
    seconds = HOP / RATE
    scoring = JudgeScoring(window_s=WINDOW * seconds, batch_s=2 * WINDOW * 3 * seconds)
    return JudgeScorer(judge, tokenizer_for("byt5"), scoring)


@pytest.fixture(scope="module")
def sounds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mixtures = rng.standard_normal((len(LENGTHS), max(LENGTHS))).astype(np.float32)
    shape = (len(LENGTHS), CANDIDATES, max(LENGTHS))
    return mixtures, rng.standard_normal(shape).astype(np.float32)


def plain_frames(judge: Judge, mixture, separated, ids, mask):
    frames = judge.embed_audio(judge.latents(jnp.concatenate([mixture, separated])))
    of_mixture, of_separated = jnp.split(frames, 2)
    return judge.frame_scores(of_mixture, of_separated, judge.embed_text(ids, mask))


def windows_of(length):
    """Start of each window in frames, and the frames that it adds to those before."""
    frames = -(-length // HOP)
    starts = [*range(0, frames - WINDOW, WINDOW), frames - WINDOW]
    return [
        (start, slice(max(0, before - start), None))
        for start, before in zip(starts, [0, *[s + WINDOW for s in starts]], strict=False)
    ]


def test_scores_are_those_of_each_pair_alone(judge, scorer, sounds):
    assert isinstance(scorer, Scorer)
    mixtures, candidates = sounds
    scores = scorer.score(mixtures, candidates, np.array(LENGTHS), RATE, PROMPTS)
    pairs, of, texts = [], [], []
    for item, length in enumerate(LENGTHS):
        for number, candidate in enumerate(candidates[item]):
            for start, added in windows_of(length):
                part = slice(start * HOP, min((start + WINDOW) * HOP, length))
                pairs.append((mixtures[item][part], candidate[part]))
                of.append((item, number, added))
                texts.append(TEXTS[item])
    inputs = judge_inputs([a for a, _ in pairs], [b for _, b in pairs], RATE, tiny.JUDGE)
    assert inputs.valid.all()
    ids, mask = tokenizer_for("byt5")(texts)
    rows = np.asarray(Compiled(judge)(plain_frames, *inputs[:2], ids, mask), np.float64)
    for item, length in enumerate(LENGTHS):
        for number in range(CANDIDATES):
            mine = [
                row[added]
                for row, (i, n, added) in zip(rows, of, strict=True)
                if (i, n) == (item, number)
            ]
            frames = np.concatenate(mine)
            assert len(frames) == -(-length // HOP)
            want = frames.mean(axis=0) * np.asarray(judge.std[...]) + np.asarray(judge.mean[...])
            got = [scores[axis][item, number] for axis in AXES]
            np.testing.assert_allclose(got, want, atol=2e-6)
    assert all(scores[axis].shape == (len(LENGTHS), CANDIDATES) for axis in AXES)
    assert np.ptp(scores["overall"]) > 1e-3


def test_batches_are_bounded_and_neither_padding_nor_company_changes_a_score(
    scorer, sounds, monkeypatch
):
    mixtures, candidates = sounds
    want = scorer.score(mixtures, candidates, np.array(LENGTHS), RATE, PROMPTS)
    shapes, run = [], scorer._judge.on_batch

    def on_batch(program, *arrays, **static):
        shapes.append(arrays[0].shape)
        return run(program, *arrays, **static)

    monkeypatch.setattr(scorer._judge, "on_batch", on_batch)
    beyond = np.arange(max(LENGTHS)) >= np.array(LENGTHS)[:, None]
    loud = np.where(beyond, 9, mixtures), np.where(beyond[:, None], 9, candidates)
    order = [2, 0, 1]
    got = scorer.score(
        *(x[order].astype(np.float32) for x in loud),
        np.array(LENGTHS)[order],
        RATE,
        [PROMPTS[item] for item in order],
    )
    for axis in AXES:
        np.testing.assert_allclose(got[axis], want[axis][order], atol=2e-6)
    sources = [shape for shape in shapes if len(shape) == 3]
    assert {shape[:2] for shape in sources} == {(2, 1 + CANDIDATES)}
    assert len(sources) == 3  # one, one and four windows, two at a time


@pytest.mark.long
@pytest.mark.processes
def test_a_batch_is_shared_out_over_a_mesh():
    done = subprocess.run(
        [sys.executable, str(pathlib.Path(__file__).parent / "eight_devices.py")],
        env=environment(devices=8, JAX_DEFAULT_MATMUL_PRECISION="highest"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.golden
def test_the_processor_is_the_references(fixtures_dir):
    folder = fixtures_dir / "judge"
    config = judge_config(read_object(folder / "config.json"))
    stored = load_file(folder / "processor.safetensors")
    count = sum(name.startswith("raw_input") for name in stored)
    mixtures = [stored[f"raw_input{i}"][0] for i in range(count)]
    separated = [stored[f"raw_separated{i}"][0] for i in range(count)]
    got = judge_inputs(mixtures, separated, config.sample_rate, config)
    np.testing.assert_array_equal(got.mixture, stored["input_values"][:, 0])
    np.testing.assert_array_equal(got.separated, stored["separated_values"][:, 0])
    np.testing.assert_array_equal(np.repeat(got.valid, config.hop, 1), stored["padding_mask"])


def test_what_the_judge_cannot_read_is_the_users_error(judge, scorer):
    clip = np.zeros(3 * HOP, np.float32)
    config = tiny.JUDGE
    with pytest.raises(UserError, match="at 200 Hz, not at 8000 Hz"):
        judge_inputs([clip], [clip], 8_000, config)
    with pytest.raises(UserError, match=r"clip 0 has 4 samples at 200 Hz, too few .* 5 are needed"):
        judge_inputs([clip[:4]], [clip[:4]], RATE, config)
    with pytest.raises(
        UserError, match="mixture has 24 samples, the separated sound 16; both must"
    ):
        judge_inputs([clip], [clip[: 2 * HOP]], RATE, config)
    with pytest.raises(UserError, match="2 separated sounds were given with 1 mixtures"):
        judge_inputs([clip], [clip, clip], RATE, config)
    with pytest.raises(UserError, match="recording 0 of a batch has 4 samples at 200 Hz"):
        scorer.score(clip[None], clip[None, None], np.array([4]), RATE, PROMPTS[:1])
    small = JudgeScorer(judge, tokenizer_for("byt5"))
    text = dataclasses.replace(config.text, vocab_size=20)
    small.config = dataclasses.replace(config, text=text)
    with pytest.raises(UserError, match="text model knows 20: it belongs to another model"):
        small.embed_texts(["dog"])
