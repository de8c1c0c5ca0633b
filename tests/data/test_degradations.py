"""Each kind of degradation moves the scores that it should, the more the stronger it is."""

import numpy as np
import pytest

from sam_audio_jax.data.degradations import KINDS, Applied, TrueStems, degraded
from sam_audio_jax.eval.true_ratings import Reference, rate

RATE = 8000


@pytest.fixture(scope="module")
def stems() -> TrueStems:
    """A gliding harmonic tone in two notes, beside bursts of noise at other times."""
    time = np.arange(3 * RATE) / RATE
    rng = np.random.default_rng(0)
    pitch = 2 * np.pi * np.cumsum(200 + 60 * np.sin(2 * time)) / RATE
    tone = sum(np.sin(n * pitch) / n for n in range(1, 15)) * ((time % 1.4) < 1.0)
    noise = rng.standard_normal(len(time)) * ((time % 0.9) < 0.5)
    return TrueStems((0.1 * tone).astype(np.float32), (0.05 * noise).astype(np.float32), RATE)


def scores(stems: TrueStems, kind: str, strength: float):
    rows = []
    for seed in range(3):
        wave = degraded(stems, [Applied(kind, strength)], np.random.default_rng(seed))
        assert wave.dtype == np.float32
        assert wave.shape == stems.target.shape
        rows.append(rate(wave, Reference.of(stems)))
    return np.mean(rows, axis=0)


# Kind -> axes (1 recall, 2 precision, 3 faithfulness) that fall; those that stay within 0.8.
MOVES = {
    "wrong source": ((1, 2), (3,)),
    "missing parts": ((1,), (2, 3)),
    "leakage": ((2,), (1, 3)),
    "band loss": ((1,), (2,)),
    "musical noise": ((1, 2, 3), ()),
    "smear": ((2, 3), (1,)),
    "clipping": ((3,), (1,)),
    "coding": ((3,), (1,)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_moves_its_axes_and_no_others(stems, kind):
    weak, middle, strong = (scores(stems, kind, strength) for strength in (0.1, 0.5, 0.9))
    falling, steady = MOVES[kind]
    for axis in (0, *falling):  # the overall score always falls
        assert weak[axis] > middle[axis] + 0.1 > strong[axis], (axis, weak, middle, strong)
    for axis in steady:
        assert abs(weak[axis] - middle[axis]) < 0.8, (axis, weak, middle)


def test_known_strengths(stems):
    rng = np.random.default_rng
    leaked = degraded(stems, [Applied("leakage", 1 / 3)], rng(0)) - stems.target
    np.testing.assert_allclose(leaked, 0.1 * stems.residual, atol=1e-6)  # -20 dB
    wrong = degraded(stems, [Applied("wrong source", 1.0)], rng(0))
    assert np.mean(np.abs(wrong - stems.residual) < 1e-6) > 0.95
    cut = degraded(stems, [Applied("missing parts", 0.5)], rng(1))
    kept = np.mean((cut != 0) & (stems.target != 0)) / np.mean(stems.target != 0)
    assert abs(kept - (1 - 0.475)) < 0.05
    clipped = degraded(stems, [Applied("clipping", 0.5)], rng(0))
    assert np.isclose(np.sum(clipped**2), np.sum(stems.target**2), rtol=1e-3)


def test_the_same_draws_give_the_same_wave_in_one_order_of_kinds(stems):
    kinds = [Applied(kind, 0.4) for kind in KINDS]
    one, other = (degraded(stems, x, np.random.default_rng(3)) for x in (kinds, kinds[::-1]))
    np.testing.assert_array_equal(one, other)
    assert np.any(one != degraded(stems, kinds, np.random.default_rng(4)))
    np.testing.assert_array_equal(degraded(stems, [], np.random.default_rng(0)), stems.target)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_shortness_are_no_errors(kind):
    silent = TrueStems(np.zeros(300, np.float32), np.zeros(300, np.float32), RATE)
    wave = degraded(silent, [Applied(kind, 1.0)], np.random.default_rng(0))
    assert wave.shape == (300,)
    assert not wave.any()
