"""Candidates: one program, encoders once per item, the one with the best score is returned."""

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, SAMAudioProcessor
from sam_audio_jax.audio import Level
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import rerank
from sam_audio_jax.scorers.activity import ActivityConfig
from sam_audio_jax.scorers.scorer import PromptView, SpanIoU
from sam_audio_jax.separator import flow

RATE = 8_000
PROMPTS = {"text": "dog", "spans": [("+", 0.2, 0.6)]}


class Fixed:
    """Gives every item these scores, and records its calls."""

    needs, axes = "text", ("fixed",)

    def __init__(self, *scores):
        self.scores, self.calls = scores, []

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        self.calls.append((mixtures, candidates, lengths, sample_rate, prompts))
        return {"fixed": np.array([self.scores] * len(prompts))}


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(7).standard_normal((3, 26, 16)).astype("f4")


def test_the_best_candidate_is_the_solve_from_its_noise(model, noise_of, draws):
    wave = noise_of(1.01)
    scorer = Fixed(0.1, 0.9, 0.9)
    stems = model.separate(
        wave, **PROMPTS, sample_rate=RATE, noise=draws, reranking_candidates=3, scorer=scorer
    )
    np.testing.assert_array_equal(stems.scores, np.float32([0.1, 0.9, 0.9]))  # 1 is the first best
    alone = [model.separate(wave, **PROMPTS, sample_rate=RATE, noise=one) for one in draws]
    for name in ("target", "residual"):
        np.testing.assert_allclose(getattr(stems, name), getattr(alone[1], name), atol=2e-5)
    (((mixture,), (targets,), (length,), rate, prompts),) = scorer.calls
    np.testing.assert_allclose(targets, [one.target for one in alone], atol=2e-5)
    np.testing.assert_array_equal(mixture, wave)
    assert length == len(wave)
    assert (rate, prompts) == (RATE, [PromptView(text="dog", spans=(("+", 0.2, 0.6),))])
    assert np.abs(alone[0].target - alone[1].target).max() > 1e-3
    assert alone[0].scores is None


def test_the_first_candidate_is_the_solve_without_candidates(model, noise_of):
    wave = noise_of(1.01)
    alone = model.separate(wave, **PROMPTS, sample_rate=RATE, seed=3)
    best = [
        model.separate(
            wave, **PROMPTS, sample_rate=RATE, seed=3, candidates=3, scorer=Fixed(*scores)
        )
        for scores in np.eye(3)
    ]
    np.testing.assert_allclose(best[0].target, alone.target, atol=2e-5)
    for one in best[1:]:
        assert np.abs(one.target - alone.target).max() > 1e-3


def test_encoders_run_once_for_an_item(folder, noise_of, monkeypatch):
    encode, encode_text, sample, seen = Codec.encode, T5Encoder.__call__, flow.sample, []

    def encoded(codec, wave):
        seen.append(("wave", wave.shape[0]))
        return encode(codec, wave)

    def text_encoded(encoder, ids, mask):
        seen.append(("text", ids.shape[0]))
        return encode_text(encoder, ids, mask)

    def sampled(velocity, noise, sampler):
        seen.append(("solve", noise.shape[0]))
        return sample(velocity, noise, sampler)

    monkeypatch.setattr(Codec, "encode", encoded)
    monkeypatch.setattr(T5Encoder, "__call__", text_encoded)
    monkeypatch.setattr(flow, "sample", sampled)
    model = SAMAudio.from_pretrained(folder)
    waves = [noise_of(0.5, seed) for seed in range(2)]
    for _ in range(2):  # traced together, once
        stems = model.separate(
            waves, ["a", "b"], sample_rate=RATE, candidates=3, scorer=Fixed(0, 1, 2)
        )
    assert sorted(seen) == [("solve", 6), ("text", 2), ("wave", 2)]
    assert len(stems) == 2


def test_a_batch_keeps_the_candidates_of_an_item_together(model, noise_of):
    waves = [noise_of(1.0, 1), noise_of(1.0, 2)]
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
    anchors = [[("+", 0.2, 0.6)], [("+", 0.0, 0.4)]]
    batch = processor(["dog", "cat"], waves, anchors=anchors)
    noise = np.random.default_rng(1).standard_normal((4, 25, 16)).astype("f4")
    scorer = Fixed(0, 1)
    result = model.separate(batch, noise=noise, reranking_candidates=2, scorer=scorer)
    np.testing.assert_array_equal(result.noise, noise)
    np.testing.assert_array_equal(result.scores, [[0, 1], [0, 1]])
    for item, text in enumerate(("dog", "cat")):
        alone = model.separate(
            waves[item], text, anchors[item], sample_rate=RATE, noise=noise[2 * item + 1]
        )
        np.testing.assert_allclose(result.target[item], alone.target, atol=2e-5)
        np.testing.assert_allclose(result.residual[item], alone.residual, atol=2e-5)
    ((*_, prompts),) = scorer.calls
    assert [view.text for view in prompts] == ["dog", "cat"]


def test_span_iou_prefers_targets_that_sound_in_their_spans():
    seconds = np.arange(2 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds).astype("f4")
    inside = tone * ((seconds >= 0.5) & (seconds < 1.0))
    late = tone * ((seconds >= 1.2) & (seconds < 1.7))
    targets = np.stack([late, inside, tone])
    prompts = PromptView(spans=(("-", 1.2, 1.7), ("+", 0.5, 1.0)))
    ((best, scores),) = rerank.rank(SpanIoU(), [targets], [tone], RATE, [prompts])
    assert best == 1
    assert scores[0] < scores[2] < scores[1]
    assert scores[1] > 0.9
    np.testing.assert_allclose(scores[2], 0.25, atol=0.02)
    ((_, recall),) = rerank.rank(SpanIoU("recall"), [targets], [tone], RATE, [prompts])
    np.testing.assert_allclose(recall, [0, 1, 1], atol=0.05)
    # Padding of the batch changes nothing.
    pair = [targets, targets[:, : RATE + 7]], [tone] * 2
    together = rerank.rank(SpanIoU(), *pair, RATE, [prompts] * 2)
    short = rerank.rank(SpanIoU(), [targets[:, : RATE + 7]], [tone], RATE, [prompts])
    np.testing.assert_array_equal(together[0][1], scores)
    np.testing.assert_array_equal(together[1][1], short[0][1])
    with pytest.raises(UserError, match="metric='f1' is unknown; allowed: iou"):
        SpanIoU("f1")


def test_spans_rank_a_faint_recording_as_a_loud_one():
    """The measure rounds to 16 bits, of which this recording has none."""
    seconds = np.arange(2 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds).astype("f4")
    targets = np.stack([tone, tone * (seconds < 1.0)])
    level, prompts = Level(gain=1e5), [PromptView(spans=(("+", 0.0, 1.0),))]
    rest = [level], [level.undo(tone)], RATE, prompts
    ((best, scores),) = rerank.rank_items([SpanIoU()], [targets], *rest)
    assert best == 1
    np.testing.assert_allclose(scores, [0.5, 1.0], atol=0.05)
    loudness = ActivityConfig(mode="abs", threshold_db=-40.0)  # for which the level counts
    ((_, scores),) = rerank.rank_items([SpanIoU(config=loudness)], [targets], *rest)
    np.testing.assert_array_equal(scores, [0.0, 0.0])


def test_spans_rank_candidates_without_another_scorer(model, noise_of):
    waves = [noise_of(1.01, 1), noise_of(0.8, 2)]
    spans = [[("+", 0.2, 0.6)], [("-", 0.0, 0.1), ("+", 0.4, 0.8)]]
    stems = model.separate(waves, spans=spans, sample_rate=RATE, candidates=2)
    for one, row in zip(stems, spans, strict=True):
        assert one.scores.shape == (2,)
        prompts = PromptView(spans=tuple(row))
        ((_, score),) = rerank.rank(SpanIoU(), [one.target[None]], [one.target], RATE, [prompts])
        np.testing.assert_allclose(one.scores.max(), score[0], atol=1e-3)


def test_scores_that_are_no_numbers_rank_nothing():
    """As a network gives of a recording that is louder by far than any that it was trained with."""
    targets, prompts = [np.zeros((2, 9), "f4")], [PromptView(text="dog")]
    for score in (np.nan, np.inf):
        with pytest.raises(UserError, match="cannot be ranked: the score 'fixed' of some is no nu"):
            rerank.rank(Fixed(1.0, score), targets, [targets[0][0]], RATE, prompts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "dog"}, r"candidates of audio cannot be ranked: this model names no text ranker"),
        ({"spans": [("-", 0, 0.5)]}, r"cannot be ranked: give a text, '\+' spans or a video"),
        ({"text": "dog", "scorer": SpanIoU()}, r"SpanIoU needs '\+' spans"),
        ({"spans": [("+", 0, 0.5)], "scorer": Fixed(1, 2)}, "Fixed needs a text"),
        ({"candidates": 0}, "candidates=0 must be a whole number from 1"),
        ({"reranking_candidates": 3}, "two names of one thing"),
        (
            {"noise": np.zeros((26, 16), "f4"), **PROMPTS},
            r"shape \(2, 26, 16\) \(candidates, frames, twice",
        ),
    ],
)
def test_wrong_calls(model, noise_of, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        model.separate(noise_of(1.01), sample_rate=RATE, **{"candidates": 2} | arguments)
    assert "\n" not in str(caught.value)
