"""Bootstrap intervals: equal to theory, repeatable, and computed without missing values."""

import math

import numpy as np

from sam_audio_jax.eval.statistics import aggregate, bootstrap


def test_interval_is_that_of_the_normal_theory():
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap(values.tolist(), seed=3)
    error = 1.96 * values.std() / 20
    assert interval is not None
    assert interval.mean == values.mean()
    np.testing.assert_allclose(
        [interval.low, interval.high], values.mean() + error * np.array([-1, 1]), atol=0.05
    )
    assert interval == bootstrap(values.tolist(), seed=3)
    assert interval != bootstrap(values.tolist(), seed=4)


def test_gaps_are_left_out_and_counted():
    assert bootstrap([]) is None
    assert bootstrap([math.nan]) is None
    interval = bootstrap([1.0, math.nan, 3.0])
    assert interval is not None
    assert (interval.mean, interval.n) == (2.0, 2)


def test_aggregate_has_a_cell_per_setting_and_one_for_all():
    items = [
        {"row": "mixture", "setting": "sfx", "score": 1.0},
        {"row": "mixture", "setting": "speech", "score": 3.0, "follows": True},
        {"row": "model", "setting": "sfx", "score": 5.0},
    ]
    cells = aggregate(items, ["score", "follows"])
    means = {(c.row, c.setting, c.column): (c.interval.mean, c.interval.n) for c in cells}
    assert means == {
        ("mixture", "sfx", "score"): (1.0, 1),
        ("mixture", "speech", "score"): (3.0, 1),
        ("mixture", "speech", "follows"): (1.0, 1),
        ("mixture", "all", "score"): (2.0, 2),
        ("mixture", "all", "follows"): (1.0, 1),
        ("model", "sfx", "score"): (5.0, 1),
        ("model", "all", "score"): (5.0, 1),
    }
