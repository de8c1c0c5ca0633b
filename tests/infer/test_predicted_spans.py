"""Spans that a model predicts by itself condition its solve, once for each item."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import SAMAudio, SAMAudioProcessor
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.encoders.modernbert import ModernBertConfig
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.encoders.span_predictor import SpanPredictor, SpanPredictorConfig
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import span_prediction
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.span_prediction import THRESHOLD, predict_spans, span_probabilities
from sam_audio_jax.nn.rngs import Rngs

RATE, HOP = 8_000, 320
CONFIG = SpanPredictorConfig(
    audio=PeavConfig(depth=1, width=16, heads=2, mlp=24),
    text=ModernBertConfig(vocab_size=384, width=16, depth=1, heads=2, mlp=12, window=4),
    channels=8,
    embed=8,
    sample_rate=RATE,
    encoder_rates=(16, 20),
)


@pytest.fixture(scope="module")
def parts(folder):
    return load_networks(str(folder))


@pytest.fixture(scope="module")
def mean(parts, wave):
    """The codec's mean of `wave`, not normalised."""
    return nnx.jit(lambda codec, wave: codec.moments(wave)[0])(parts[0], jnp.asarray(wave[None]))


@pytest.fixture(scope="module")
def pair(mean):
    """A predictor that finds something in `wave`, and its tokenizer."""
    finder, tokenizer = SpanPredictor(CONFIG, rngs=Rngs(0)), tokenizer_for("byt5")
    (likely,) = span_probabilities(finder, tokenizer, mean, None, ["dog"])
    logits = np.sort(np.log(likely / (1 - likely)))[8:17]  # of the 25 frames those in the middle
    widest = int(np.argmax(np.diff(logits)))  # no frame is so near that a rounding decides
    boundary = float(logits[widest : widest + 2].mean())
    finder.logit_bias[...] += math.log(THRESHOLD / (1 - THRESHOLD)) - boundary
    return finder, tokenizer


@pytest.fixture(scope="module")
def wave():
    return (0.1 * np.random.default_rng(0).standard_normal(25 * HOP)).astype("f4")


@pytest.fixture(scope="module")
def able(parts, pair):
    codec, prompted, tokenizer, _ = parts
    return SAMAudio(codec, prompted, tokenizer_for(tokenizer), span_predictor=pair)


@pytest.fixture(scope="module")
def found(mean, pair):
    (spans,) = predict_spans(*pair, mean, None, ["dog"])
    assert 0 < sum(end - start for _, start, end in spans) < 1
    return spans


def same(left, right):
    np.testing.assert_allclose(left.target, right.target, atol=2e-5)
    np.testing.assert_allclose(left.residual, right.residual, atol=2e-5)


def test_predicted_spans_condition_like_the_same_spans_from_a_caller(able, wave, found):
    predicted = able.separate(wave, "dog", sample_rate=RATE, predict_spans=True)
    assert predicted.spans == tuple(found)
    same(predicted, able.separate(wave, "dog", found, sample_rate=RATE))
    without = able.separate(wave, "dog", sample_rate=RATE)
    assert without.spans == ()
    assert np.abs(predicted.target - without.target).max() > 1e-4


def test_callers_spans_stay_and_every_item_is_predicted_once(able, wave, found, monkeypatch):
    calls, predict = [], span_prediction.predict_spans

    def counted(finder, tokenizer, latents, valid, texts, **options):
        calls.append((latents.shape[0], list(texts)))
        return predict(finder, tokenizer, latents, valid, texts, **options)

    monkeypatch.setattr(span_prediction, "predict_spans", counted)
    spans = [None, [("+", 0.1, 0.5)]]
    stems = able.separate(
        [wave, wave], ["dog", "dog"], spans, sample_rate=RATE, predict_spans=True, candidates=3
    )
    assert calls == [(2, ["dog", "dog"])]
    assert [one.spans for one in stems] == [tuple(found), (("+", 0.1, 0.5),)]
    assert all(one.scores.shape == (3,) for one in stems)


def test_without_a_text_nothing_is_predicted(able, wave, found):
    waves = [wave, wave]
    without = able.separate(waves, ["dog", ""], sample_rate=RATE, unprompted=True)
    stems = able.separate(waves, ["dog", ""], sample_rate=RATE, unprompted=True, predict_spans=True)
    assert [one.spans for one in stems] == [tuple(found), ()]
    same(stems[1], without[1])
    assert any("without a text no spans are predicted" in note for note in stems[1].notes)


def test_windows_without_a_text_predict_nothing(able, wave, monkeypatch):
    passed = {}

    class Windows:
        longest = 25

        def __call__(self, mixture, noises, **options):
            passed.update(options)
            return np.zeros((1, 2, len(wave)), "f4")

    def find(*_, **__):
        raise AssertionError("predicts")

    monkeypatch.setattr(able.pipeline, "long_audio", Windows())
    monkeypatch.setattr(able.pipeline, "span_finder", find)
    item = able.item(wave, None, sample_rate=RATE)
    options = SeparateOptions(predict_spans=True, unprompted=True)
    noises = np.zeros((1, 30, 16), "f4")
    _, views = able.pipeline._solve_long(item, noises, options, np.zeros((30, 8), "f4"))
    assert passed["spans"] == views[0].spans == ()


def test_a_long_recording_is_cut_into_equal_pieces(able, monkeypatch):
    """A rest of one frame says nothing of what it is part of."""
    finder, sizes = able.pipeline.span_finder, []

    def find(_, __, latents, valid, texts, **___):
        sizes.append(latents.shape[1])
        assert valid.all()
        assert texts == ["dog"]
        return [[("+", 0.0, 0.5 * latents.shape[1] / finder.codec.frame_rate)]]

    monkeypatch.setattr(span_prediction, "predict_spans", find)
    spans = finder.in_pieces(np.zeros((51, 8), "f4"), "dog", 25)
    assert sizes == [17, 17, 17]
    frames = np.array([(start, end) for _, start, end in spans]) * finder.codec.frame_rate
    np.testing.assert_allclose(frames, [(0, 8.5), (17, 25.5), (34, 42.5)])


def test_a_batch_without_anchors_gets_them(able, wave, found):
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=HOP)
    batch = processor(["dog"], [wave])
    result = able.separate(batch, predict_spans=True)
    assert result.spans == [tuple(found)]
    anchored = able.separate(processor(["dog"], [wave], anchors=[found]))
    np.testing.assert_allclose(result.target[0], anchored.target[0], atol=2e-5)
    without = processor(["dog"], [wave], anchors=[[]])  # there are anchors: nothing is predicted
    assert able.separate(without, predict_spans=True).spans == [()]


def test_the_predictor_is_loaded_when_it_is_first_needed(folder, pair, wave, monkeypatch):
    loaded = []

    def load(path):
        loaded.append(path)
        return pair[0], "byt5"

    monkeypatch.setattr(span_prediction, "load_span_predictor", load)
    model = SAMAudio.from_pretrained(folder, span_predictor="pe-a-frame-small")
    assert not loaded
    for _ in range(2):
        assert model.pipeline.span_finder(
            np.zeros((1, 25, 8), "f4"), np.ones((1, 25), bool), ["dog"], padding=False
        )
    assert loaded == ["pe-a-frame-small"]


def test_spans_that_cannot_be_predicted_are_the_users_error(model, parts, wave):
    with pytest.raises(UserError, match="this model has no span predictor: give span_predictor="):
        model.separate(wave, "dog", sample_rate=RATE, predict_spans=True)
    codec, prompted, tokenizer, _ = parts
    slow = SpanPredictor(
        dataclasses.replace(CONFIG, sample_rate=16_000),
        rngs=Rngs(0),
    )
    other = SAMAudio(
        codec, prompted, tokenizer_for(tokenizer), span_predictor=(slow, tokenizer_for("byt5"))
    )
    with pytest.raises(UserError, match="has 50 frames a second, the codec 25"):
        other.separate(wave, "dog", sample_rate=RATE, predict_spans=True)
