"""Correlations of scores with ratings, of items and of systems."""

import numpy as np
import scipy.stats

from sam_audio_jax.eval.agreement import agreement, correlate, pcc, srcc


def test_correlations_are_scipys_also_of_many_sets_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 3, 20)).astype(float)
    for row in range(3):
        pair = x[row], y[row]
        np.testing.assert_allclose(pcc(x, y)[row], scipy.stats.pearsonr(*pair).statistic)
        np.testing.assert_allclose(srcc(x, y)[row], scipy.stats.spearmanr(*pair).statistic)
    assert np.isnan(pcc(np.ones(4), np.arange(4.0)))


def test_intervals_hold_the_value_and_narrow_with_more_rows():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(400)
    y = x + rng.standard_normal(400)
    widths = []
    for rows in (40, 400):
        value, low, high = correlate("pcc", x[:rows], y[:rows])
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert low < np.sqrt(0.5) < high
    assert correlate("pcc", x[:2], y[:2]) is None
    assert correlate("srcc", np.ones(9), y[:9]) is None


def test_items_and_systems_of_each_domain():
    scores = np.array([[1.0], [2], [3], [4], [5], [6]])
    ratings = np.array([[1.0], [3], [2], [4], [6], [np.nan]])
    domains = ["a", "a", "a", "b", "b", "b"]
    rows = agreement(scores, ratings, ["overall"], domains, ["s", "s", "t", "u", "u", "u"])
    found = {(row.domain, row.level, row.kind): row for row in rows}
    assert set(found) == {
        (domain, level, kind)
        for domain, level in (("all", "utterance"), ("all", "system"), ("a", "utterance"))
        for kind in ("pcc", "srcc")
    }  # b has two rated items, and no domain has three systems
    assert found["all", "utterance", "srcc"].n == 5
    np.testing.assert_allclose(found["all", "utterance", "srcc"].value, 0.9)
    np.testing.assert_allclose(
        found["all", "system", "pcc"].value, pcc(np.array([1.5, 3, 4.5]), np.array([2.0, 2, 5]))
    )
