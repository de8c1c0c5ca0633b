"""The page of a comparison names scores and rows in words, and each score once."""

import dataclasses

from sam_audio_jax.eval.comparison_page import AGAINST, Comparison, comparison_page, without_doubles
from sam_audio_jax.eval.statistics import Interval

WINS, BETTER = Interval(-0.25, -0.5, 0.0, 12), Interval(0.5, 0.25, 0.75, 12)
ONE = Comparison("model/none/text", "sisdri", "all", "", WINS, BETTER, (1.5, 1.0))


def test_all_scores_are_first_and_each_has_its_settings_and_groups_below():
    sfx = dataclasses.replace(ONE, setting="sfx")
    louder = dataclasses.replace(ONE, group="loudness: <1>")
    in_part = dataclasses.replace(ONE, setting="sfx", group="of one setting alone")
    page = comparison_page(["<a>", "b"], [sfx, in_part, ONE, louder])
    overview, details = page.split("<details>")
    assert "<h1>&lt;a&gt; against b</h1>" in overview
    assert "Model, as generated, prompt: text" in overview
    assert "<td>SI-SDR improvement of the target, dB</td><td>&minus;25 %" in overview
    assert "<td>1.50</td><td>1.00</td><td>0.50<small>0.25 to 0.75</small>" in overview
    assert "<td>sfx</td>" not in overview
    assert "<td>sfx</td>" in details
    assert "loudness: &lt;1&gt;" in details
    assert "of one setting alone" not in page


def test_named_rows_and_those_of_tables_keep_their_names():
    other = dataclasses.replace(ONE, row=f"model/wiener/text{AGAINST}table", column="my score")
    page = comparison_page(["a", "b"], [other])
    assert "Model, refined on the recording (wiener), prompt: text against table" in page
    assert "<td>my score</td>" in page


def test_si_sdr_is_left_out_where_its_improvement_is_there():
    plain = dataclasses.replace(ONE, column="sisdr")
    of_people = dataclasses.replace(plain, row="table")
    assert without_doubles([plain, ONE, of_people]) == [ONE, of_people]
