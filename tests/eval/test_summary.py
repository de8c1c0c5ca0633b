"""The summary for a terminal shows the rows over all settings."""

import json

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.summary import summary


def test_rows_over_all_settings_are_shown_with_their_intervals(tmp_path):
    cell = {"row": "model/wiener/text", "setting": "all", "column": "sisdri"}
    cell |= {"mean": 1.31, "low": 0.34, "high": 2.24, "n": 15}
    hidden = [cell | {"setting": "sfx", "mean": 7.7}, cell | {"column": "logmel", "mean": 8.8}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"table": [*hidden, cell]}))
    _, line = summary(path).splitlines()
    assert " ".join(line.split()) == "wiener/text +1.3 dB (+0.3 to +2.2) 15 mixtures"


def test_a_score_of_a_network_says_which_one_it_is(tmp_path):
    cell = {"row": "model/none/text", "setting": "all", "column": "judge_overall"}
    cell |= {"mean": 3.21, "low": 3.0, "high": 3.4, "n": 5}
    path = tmp_path / "results.json"
    scorers = {"judge": "JudgeScorer of judge-tiny; not the released one"}
    path.write_text(json.dumps({"table": [cell], "settings": {"scorers": scorers}}))
    _, named, line = summary(path).splitlines()
    assert named == "  judge: JudgeScorer of judge-tiny; not the released one"
    assert " ".join(line.split()) == "all, text judge 3.21 (3.00 to 3.40) 5 items"


def test_one_item_has_no_interval(tmp_path):
    cell = {"row": "model/none/text", "setting": "all", "mean": 3.21, "low": 3.21, "high": 3.21}
    cells = [cell | {"n": 1, "column": column} for column in ("sisdri", "judge_overall")]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"table": cells}))
    lines = [" ".join(line.split()) for line in summary(path).splitlines()]
    assert "none/text +3.2 dB 1 mixture" in lines
    assert "all, text judge 3.21 1 item" in lines


def test_what_has_no_score_and_what_is_in_no_number_is_said(tmp_path):
    path = tmp_path / "results.json"
    results = {"table": [], "mixtures": {"sfx": 3, "speech": 1}, "missing": [{}, {}]}
    path.write_text(json.dumps(results))
    assert summary(path).splitlines() == [
        "No score was measured: no stems are known, and --scorers names no network.",
        "2 of 4 items are in no number: the report lists them.",
    ]


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_file_without_results_is_the_users_error(text, tmp_path):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="holds no results of an evaluation"):
        summary(path)
