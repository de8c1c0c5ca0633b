"""Bootstrap intervals: equal to theory, repeatable, and computed without missing values."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.eval.statistics import (
    Interval,
    aggregate,
    bootstrap,
    interval_text,
    net_win_rate,
)


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


def test_intervals_in_words():
    interval = Interval(0.125, -0.5, 1.0, 3)
    assert interval_text(interval) == "0.12 (-0.50 to 1.00)"
    assert interval_text(interval, "{:+.0f} %", 100.0) == "+12 % (-50 % to +100 %)"
    assert interval_text(None) == "-"
    assert interval_text(bootstrap([0.5]), "{:.1f}") == "0.5"  # one item has no interval


@pytest.mark.golden
def test_net_win_rate_equals_the_reference(fixtures_dir):
    folder = fixtures_dir / "metrics"
    values = json.loads((folder / "metrics_values.json").read_text())["values"]
    ratings = load_file(folder / "metrics_io.safetensors")
    ours, theirs = (ratings[f"rating.{name}"].tolist() for name in "ab")
    interval, opposite = net_win_rate(ours, theirs), net_win_rate(theirs, ours)
    assert interval is not None
    assert opposite is not None
    assert interval.mean == pytest.approx(values["net_win_rate"], abs=1e-6)
    assert (opposite.mean, opposite.low) == pytest.approx((-interval.mean, -interval.high))
    assert interval.low < interval.mean < interval.high


def test_net_win_rate_counts_ties_and_pairs_items():
    # Every item is two apart, though the two lists overlap: no resample can turn a win into a loss.
    values = np.arange(20.0)
    assert net_win_rate((values + 2).tolist(), values.tolist()).low == 1
    ours, theirs = [1.0, 1.0, 3.0, 0.0, math.inf], [1.0, 1.0, 2.0, 0.0, 5.0]
    assert net_win_rate(ours, theirs).mean == pytest.approx(0.4)
    assert net_win_rate([1.0, math.nan], [0.0, 1.0]).n == 1
    assert net_win_rate([], []) is None
    with pytest.raises(ValueError, match="two lists of one length"):
        net_win_rate([1.0, 2.0], [1.0])


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
