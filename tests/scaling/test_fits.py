"""Fits recover planted laws, and say how sure they are."""

import dataclasses

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.scaling import parabolas, simulation
from sam_audio_jax.scaling.intervals import uncertainty
from sam_audio_jax.scaling.law import Law, fit
from sam_audio_jax.scaling.optimum import PerUnit, best_size
from sam_audio_jax.scaling.points import points
from sam_audio_jax.scaling.simulation import SimulatedStudy, coverage, simulated

EXACT = SimulatedStudy(noise=0.0)
FEW = SimulatedStudy(
    sizes=tuple(np.geomspace(1e5, 3e6, 3)), amounts=tuple(np.geomspace(2e4, 6e5, 4)), noise=0.0
)


@pytest.mark.parametrize(
    "law",
    [
        simulation.PLANTED,
        Law(E=0.0, A=20.0, alpha=0.25, B=90.0, beta=0.45),
        Law(E=1.69, A=406.4, alpha=0.336, B=410.7, beta=0.283),  # arXiv 2203.15556's, corrected
        Law(E=0.9, A=900.0, alpha=0.9, B=2.0, beta=0.12),
    ],
)
@pytest.mark.parametrize("design", [EXACT, FEW])
def test_a_law_without_noise_is_recovered(law, design):
    design = dataclasses.replace(design, law=law)
    found = fit(simulated(design, np.random.default_rng(0)))
    assert not found.exponents_at_edge or law.E == 0
    for name, value in law.as_dict().items():
        assert getattr(found.law, name) == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_noise_and_a_wrong_outlier_move_a_fit_little():
    rng = np.random.default_rng(3)
    noisy = simulated(SimulatedStudy(), rng)
    wrong = noisy.loss.copy()
    wrong[7] *= 1.3
    clean, robust = fit(noisy).law, fit(points(noisy.n, noisy.d, wrong))
    assert robust.outliers[7]
    assert robust.outliers.sum() <= 2
    truth = simulation.PLANTED
    far = (2e7, 6e6)
    for law in (clean, robust.law):
        assert law.alpha == pytest.approx(truth.alpha, abs=0.06)
        assert law.beta == pytest.approx(truth.beta, abs=0.06)
        assert law(*far) == pytest.approx(float(truth(*far)), rel=0.03)
    assert robust.law(*far) == pytest.approx(float(clean(*far)), rel=0.01)


def test_a_law_that_the_points_do_not_fix_says_so():
    """Losses that do not depend on N have no exponent of it."""
    d = np.tile(np.geomspace(1e4, 1e6, 5), 4)
    n = np.repeat(np.geomspace(1e5, 1e7, 4), 5)
    assert fit(points(n, d, 0.5 + 3 * d**-0.3)).exponents_at_edge


@pytest.mark.parametrize(
    ("n", "d", "loss", "message"),
    [
        ([1e5] * 9, np.geomspace(1, 9, 9), [1.0] * 9, "of 1 sizes and 9 amounts"),
        ([1e5, 2e5, 3e5], [1, 2, 3], [1.0] * 3, "8 losses or more"),
        ([1e5] * 9, [1.0] * 9, [1.0] * 8 + [float("nan")], "loss above 0 and finite, not nan"),
    ],
)
def test_points_without_a_law_are_refused(n, d, loss, message):
    with pytest.raises(UserError, match=message):
        fit(points(n, d, loss))


def test_intervals_are_wider_with_more_noise_and_the_same_for_a_seed():
    widths = []
    for noise in (0.002, 0.01):
        found = fit(simulated(SimulatedStudy(noise=noise), np.random.default_rng(0)))
        intervals = [
            uncertainty(found, replicates=100, seed=1).of(found.law, lambda law: law(5e7, 6e6))
            for _ in range(2)
        ]
        assert intervals[0] == intervals[1]
        assert found.law(5e7, 6e6) in intervals[0]
        widths.append(intervals[0].high - intervals[0].low)
    assert widths[1] > 2 * widths[0]


def test_points_of_one_run_vary_together():
    """A run that is worse as a whole is one fact, not five: the intervals must be wider."""
    rng = np.random.default_rng(5)
    design = SimulatedStudy(noise=0.0)
    exact = simulated(design, rng)
    run = np.repeat(np.arange(len(design.sizes)), len(design.amounts))
    loss = exact.loss * np.exp(0.006 * rng.standard_normal(len(design.sizes))[run])
    sizes = []
    for of_run in (None, run):
        found = fit(points(exact.n, exact.d, loss, of_run))
        interval = uncertainty(found, replicates=100).of(found.law, lambda law: law(5e7, 6e5))
        sizes.append(interval.high - interval.low)
    assert sizes[1] > sizes[0]


def check_coverage(shares: dict[str, float], low: float, high: float) -> None:
    assert all(low <= share <= high for share in shares.values()), shares


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    check_coverage(coverage(SimulatedStudy(), studies=16, replicates=60), 0.6, 1.0)


@pytest.mark.long
@pytest.mark.parametrize(
    "design",
    [
        SimulatedStudy(),
        SimulatedStudy(seeds=3),
        SimulatedStudy(outliers=1),
        simulation.LONG,
    ],
    ids=["30 runs", "90", "outlier", "long"],
)
def test_intervals_hold_the_truth_in_85_to_95_of_100_studies(design):
    check_coverage(coverage(design, studies=500, replicates=200), 0.85, 0.95)


def test_the_optimum_of_a_law_is_that_of_the_formula():
    law = simulation.PLANTED
    for budget in (1e16, 1e19):
        # The derivative of L along N D = budget / OPERATIONS is 0.
        factor = law.alpha * law.A / (law.beta * law.B)
        power = 1 / (law.alpha + law.beta)
        wanted = (factor * (budget / simulation.OPERATIONS) ** law.beta) ** power
        found = best_size(law, budget, simulation.cost, (1e5, 1e6))
        assert float(found) == pytest.approx(wanted, rel=1e-3)


def test_operations_between_counted_sizes_are_interpolated():
    cost = PerUnit(np.array([1e6, 1e4, 1e5]), np.array([9e7, 2e6, 1e7]))
    assert cost(np.array([1e4, 1e5, 1e6])) == pytest.approx([2e6, 1e7, 9e7])
    assert float(cost(np.array(1e7))) == pytest.approx(81e7)
    assert float(cost(np.array(1e3))) == pytest.approx(4e5)


def test_parabolas_are_biased_even_without_noise():
    """That is why they are shown beside the law, and not used for forecasts."""
    uneven = dataclasses.replace(EXACT, law=simulation.UNEVEN)
    ratios = simulation.optima(uneven, studies=1)
    assert ratios["law"][0] == pytest.approx(1.0, abs=1e-3)
    assert ratios["parabolas"][0] == pytest.approx(1.11, abs=0.02)


def test_slices_of_long_runs_are_taken_at_equal_operations():
    law, sizes = simulation.PLANTED, np.geomspace(3e4, 5e6, 6)
    amounts = np.geomspace(2e3, 6e6, 12)
    n, d = (axis.ravel() for axis in np.meshgrid(sizes, amounts, indexing="ij"))
    operations = simulation.OPERATIONS * n * d
    cut = parabolas.slices(n, operations, law(n, d))
    assert len(cut) == 6
    for one in cut:
        assert len(one.n) >= parabolas.LEAST_SIZES
        exact = law(one.n, one.budget / (simulation.OPERATIONS * one.n))
        np.testing.assert_allclose(one.loss, exact, rtol=0.02)
