"""Aesthetics of candidates of any length: windows, their mean, padding, batches."""

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.aesthetics import AXES, Aesthetics, AestheticsConfig, AestheticsScorer
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests import tiny
from tests.encoders.test_wavlm import TINY as WAVLM

CONFIG = AestheticsConfig(wavlm=WAVLM, sample_rate=1_000, window=60, head_layers=3)
RATE, LENGTHS = 2_000, (50, 290)


@pytest.fixture(scope="module")
def scorer():
    return AestheticsScorer(tiny.filled(lambda: Aesthetics(CONFIG, rngs=Rngs(0))), windows=4)


@pytest.fixture(scope="module")
def candidates():
    shape = (len(LENGTHS), 2, max(LENGTHS))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_batch_is_scored_as_its_recordings_alone(scorer, candidates):
    assert isinstance(scorer, Scorer)
    lengths, prompts = np.array(LENGTHS), [PromptView()] * len(LENGTHS)
    beyond = np.arange(max(LENGTHS)) >= lengths[:, None, None]
    loud = np.where(beyond, np.float32(9), candidates)
    got = scorer.score(loud.sum(axis=1), loud, lengths, RATE, prompts)
    assert tuple(got) == AXES
    for item, length in enumerate(LENGTHS):
        for number in range(2):
            (alone,) = scorer.score_waves([candidates[item, number, :length]], RATE)
            want = [got[axis][item, number] for axis in AXES]
            np.testing.assert_allclose(alone, want, atol=1e-5)
    assert all(np.ptp(scores) > 1e-2 for scores in got.values())


def test_the_score_is_the_mean_over_windows_by_their_lengths(scorer, candidates):
    wave = candidates[1, 0, :130]
    parts = [wave[:60], wave[60:120], wave[120:]]
    scores = scorer.score_waves(parts, CONFIG.sample_rate)
    want = (60 * scores[0] + 60 * scores[1] + 10 * scores[2]) / 130
    (got,) = scorer.score_waves([wave], CONFIG.sample_rate)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-2


def test_the_batch_of_windows_changes_no_score(scorer, candidates, monkeypatch):
    waves = [candidates[1, 0], candidates[1, 1, :70], candidates[0, 0, :1]]
    want = scorer.score_waves(waves, RATE)
    shapes, on_batch = [], scorer.compiled.on_batch

    def observed(program, source, *rest, **static):
        shapes.append(source.shape[0])
        return on_batch(program, source, *rest, **static)

    monkeypatch.setattr(scorer.compiled, "on_batch", observed)
    monkeypatch.setattr(scorer, "windows", 1)
    np.testing.assert_allclose(scorer.score_waves(waves, RATE), want, atol=1e-5)
    assert shapes == [1] * 5  # windows of 145, 35 and 1 samples at 1 kHz


def test_a_recording_without_samples_is_the_users_error(scorer):
    with pytest.raises(UserError, match="without samples has no aesthetics scores"):
        scorer.score_waves([np.zeros(0, np.float32)], RATE)
    with pytest.raises(UserError, match=r"aesthetics\.window=399 must be at least 400"):
        AestheticsConfig(window=399)
