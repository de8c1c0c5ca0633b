"""Scores by true stems: their ends, what they ignore, and what they are undefined for."""

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.data.degradations import TrueStems
from sam_audio_jax.eval.true_ratings import Reference, rate

RATE = 8000


@pytest.fixture(scope="module")
def stems() -> TrueStems:
    time = np.arange(2 * RATE) / RATE
    rng = np.random.default_rng(1)
    tone = 0.1 * np.sin(2 * np.pi * 440 * time) * (time < 1.2)
    noise = 0.05 * np.diff(rng.standard_normal(len(time) + 1)) * (time > 0.5)
    return TrueStems(tone.astype(np.float32), noise.astype(np.float32), RATE)


def test_the_ends_of_the_scale(stems):
    reference = Reference.of(stems)
    overall, recall, precision, faithfulness = rate(stems.target, reference)
    assert min(overall, recall, precision, faithfulness) > 4.95
    wrong = rate(stems.residual, reference)
    assert wrong.recall < 1.1
    assert wrong.precision < 1.05
    assert wrong.overall < 1.3
    assert wrong.faithfulness > 4.9  # it sounds as in the mixture
    assert tuple(rate(np.zeros_like(stems.target), reference)) == (1, 1, 1, 1)
    mixture = rate(stems.mixture, reference)
    assert mixture.recall > 4.8
    assert 1.5 < mixture.precision < 3.5


def test_the_other_prompt_exchanges_what_is_right(stems):
    reference = Reference.of(stems)
    one, other = rate(stems.residual, reference.exchanged()), rate(stems.target, reference)
    np.testing.assert_allclose(
        [one.precision, one.recall], [other.precision, other.recall], atol=0.1
    )
    wave = stems.target + 0.5 * stems.residual
    own, others = rate(wave, reference), rate(wave, reference.exchanged())
    assert own.precision > others.precision
    assert own.recall > others.recall


def test_phases_do_not_count_and_gains_do(stems):
    reference = Reference.of(stems)
    turned = audio.rotate_phase(stems.target, 1.0, RATE)
    np.testing.assert_allclose(rate(turned, reference), rate(stems.target, reference), atol=0.15)
    quieter = rate(np.float32(0.5) * stems.target, reference)
    assert abs(quieter.recall - 3) < 0.05
    assert quieter.precision > 4.9


def test_a_silent_stem_has_no_scores(stems):
    with pytest.raises(ValueError, match="a stem is silent"):
        Reference.of(TrueStems(stems.target, 0 * stems.residual, RATE))
