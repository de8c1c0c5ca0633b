"""The parts of the report's page."""

import pytest

from sam_audio_jax.eval import page
from sam_audio_jax.eval.statistics import Interval


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 12.5), (0.93, 0.94), (5.0, 5.0), (1e3, 2e4)]
)
def test_ticks_are_round_and_enclose(low, high):
    ticks = page.ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 7


def test_a_chart_has_one_point_or_a_thinned_curve():
    assert "circle" in page.chart("one", [10], [1.0])
    many = page.chart("many", list(range(5_000)), [1.0] * 5_000)
    assert many.count(",") < 2 * page.POINTS


def test_a_table_escapes_names_and_has_a_dash_for_what_was_not_measured():
    rows = {"<a>": [None], "b": [Interval(-0.01, -2.0, 3.04, 5)], "c": [Interval(7.0, 7.0, 7.0, 1)]}
    text = page.table(["all"], {"models": rows})
    assert "&lt;a&gt;" in text
    assert "<td>&ndash;</td>" in text
    assert "<td>0.0<small>&minus;2.0 to 3.0</small></td>" in text
    assert "<td>7.0<small>n=1</small></td>" in text  # one item has no interval
