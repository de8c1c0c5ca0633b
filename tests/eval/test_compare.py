"""Two results against each other: reports, tables of people, groups, and what is refused."""

import json

import pytest

from sam_audio_jax.cli.evaluate import main
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.compare import compare, read_scored

COUNT = 12


def report(folder, scores, *, lower=None, seconds=10.0, bench="embedded"):
    """A report's results.json of items whose scores are given, with what is known of them."""
    folder.mkdir()
    items = [
        {"id": f"{n}", "setting": "sfx" if n % 2 else "music", "row": "model/none/text"}
        | {"clap": score, "logmel": -score if lower is None else lower, "level": n}
        | {"aesthetics_PC": score}
        for n, score in enumerate(scores)
    ]
    described = [
        {"id": one["id"], "setting": one["setting"], "seconds": seconds, "overlap": n / COUNT}
        | {"sources": 2 + n % 2}
        for n, one in enumerate(items)
    ]
    results = {"bench": bench, "items": items, "described": described}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def found(out, **wanted):
    lines = json.loads((out / "comparison.json").read_text())["comparisons"]
    return [one for one in lines if all(one[name] == value for name, value in wanted.items())]


def test_wins_are_counted_over_pairs_ties_included(tmp_path):
    ours = report(tmp_path / "a", [1.0] * 6 + [0.0] * 6)
    theirs = report(tmp_path / "b", [0.5] * 3 + [1.0] * 3 + [0.5] * 6)
    text = compare(ours, theirs, tmp_path / "out")
    (whole,) = found(tmp_path / "out", column="clap", setting="all", group="")
    assert whole["wins"]["mean"] == pytest.approx((3 - 6) / 12)  # three ties
    assert whole["wins"]["low"] < -0.25 < whole["wins"]["high"]
    assert whole["difference"]["mean"] == pytest.approx(-0.125)
    assert whole["means"] == [0.5, 0.625]
    assert "-25%" in text
    (lower,) = found(tmp_path / "out", column="logmel", setting="all", group="")
    assert lower["wins"] == whole["wins"]  # a smaller distance is better
    assert not found(tmp_path / "out", column="level")
    assert not found(tmp_path / "out", column="aesthetics_PC")  # more is not better
    assert {one["setting"] for one in found(tmp_path / "out")} == {"sfx", "music", "all"}
    assert "net win rate" in (tmp_path / "out" / "report.html").read_text()


def test_less_of_a_sound_that_is_not_there_is_better(tmp_path):
    def folder(name, level):
        path = tmp_path / name
        path.mkdir()
        row = {"setting": "sfx", "row": "model/none/absent"}
        items = [row | {"id": f"{n}", "absent_level": level - n} for n in range(COUNT)]
        (path / "results.json").write_text(json.dumps({"bench": "b", "items": items}))
        return path

    compare(folder("silent", -60.0), folder("loud", -3.0), tmp_path / "out")
    (whole,) = found(tmp_path / "out", column="absent_level", setting="all", group="")
    assert whole["wins"]["mean"] == 1
    assert whole["difference"]["mean"] == pytest.approx(57)
    assert whole["means"] == [-65.5, -8.5]


def test_groups_are_of_equally_many_items_or_of_one_value(tmp_path):
    better = [float(n >= 8) for n in range(COUNT)]
    ours, theirs = report(tmp_path / "a", better), report(tmp_path / "b", [0.5] * COUNT)
    compare(ours, theirs, tmp_path / "out")
    groups = {
        one["group"]: one["wins"]
        for one in found(tmp_path / "out", column="clap", setting="all")
        if one["group"]
    }
    wins = [value["mean"] for name, value in groups.items() if "other sounds" in name]
    assert wins == [-1.0, -1.0, 1.0]
    of_sources = {name: value["n"] for name, value in groups.items() if "sources" in name}
    assert of_sources == {"number of sources: 2": 6, "number of sources: 3": 6}
    assert not any("length" in name for name in groups)  # all are equally long


def test_peoples_scores_are_compared_by_id_and_raters_averaged(tmp_path):
    (tmp_path / "a.csv").write_text("id,score\nx,4\nx,5\ny,2\nz,3\n")
    lines = [{"id": "x", "score": 4}, {"id": "y", "score": 2}, {"id": "w", "score": 1}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compare(tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "out")
    (whole,) = found(tmp_path / "out", setting="all")
    assert whole["wins"]["mean"] == 0.5  # one win, one tie
    assert whole["wins"]["n"] == 2
    assert whole["difference"]["mean"] == 0.25


def test_equal_means_of_raters_are_ties(tmp_path):
    """Sums of decimals depend on their order; a line without an id and scores is empty."""
    (tmp_path / "a.csv").write_text("id,score\nx,3.3\nx,4.1\nx,2.2\ny,3.7\nz,2.1\n,\n")
    (tmp_path / "b.csv").write_text("id,score\nx,2.2\nx,4.1\nx,3.3\ny,3.9\ny,3.5\nz,1.1\n")
    compare(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "out")
    (whole,) = found(tmp_path / "out", setting="all")
    assert whole["wins"]["mean"] == pytest.approx(1 / 3)
    assert whole["wins"]["n"] == 3


def test_a_report_and_a_table_are_compared_by_named_rows(tmp_path):
    ours = report(tmp_path / "a", [0.9] * COUNT)
    (tmp_path / "people.csv").write_text("id,clap\n" + "".join(f"{n},0.5\n" for n in range(COUNT)))
    rows = ["model/none/text", "table"]
    compare(ours, tmp_path / "people.csv", tmp_path / "out", rows=rows)
    (whole,) = found(tmp_path / "out", setting="all", group="")
    assert (whole["wins"]["mean"], whole["wins"]["n"]) == (1.0, COUNT)
    assert found(tmp_path / "out", setting="sfx", group="")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,score\nx,good\n", "a.csv line 2: score must be a number, not 'good'"),
        ("a.csv", "name,score\nx,1\n", "a.csv line 2 must have an id"),
        ("a.csv", "id,score\nx,1\n,2\n", "a.csv line 3 must have an id, a text, and scores"),
        ("a.csv", "id,row,b\nx,oracle,2\n", "line 2: row must be a number, not 'oracle'"),
        ("a.csv", "id\nx\n", "a.csv line 2 must have one score or more"),
        ("a.jsonl", '{"id": "x", "score": true}\n', "line 1: score must be a number, not True"),
        ("a.csv", "id,score\n", "a.csv has no scores"),
        ("a.json", '{"items": [{"id": 1}]}', "a.json holds no results of an evaluation"),
        ("a.csv", "id,mark,mark\nx,1,2\n", "a.csv has several columns 'mark': give each another"),
        ("a.txt", "", "must be a report, a results.json, or a table"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_scored(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_items_of_one_name_that_are_other_recordings_are_refused(tmp_path):
    ours = report(tmp_path / "a", [1.0] * 2)
    theirs = report(tmp_path / "b", [0.0] * 2, seconds=10.5, bench="mine.jsonl")
    with pytest.raises(UserError) as error:
        compare(ours, theirs, tmp_path / "out")
    assert str(error.value) == (
        "a (on embedded) and b (on mine.jsonl) are of other recordings: music/0 has 10.00 and "
        "10.50 s"
    )
    assert not (tmp_path / "out").exists()
    copied = report(tmp_path / "c", [0.0] * 2, seconds=10.02, bench="copy")  # another codec's rate
    assert "of a (on embedded) over c (on copy), " in compare(ours, copied, tmp_path / "out")


@pytest.mark.parametrize("what", [{"loudness_lufs": -20.0}, {"levels_db": [-30.0, -20.0]}])
def test_items_of_one_name_and_length_that_are_other_mixtures_are_refused(what, tmp_path, capsys):
    """Of a corrected list names and lengths stay; at two rates levels differ by what one lacks."""

    def known(name, change, rate=16_000):
        folder = report(tmp_path / name, [float(len(name))] * 2)
        results = json.loads((folder / "results.json").read_text())
        ((field, value),) = what.items()
        for one in results["described"]:
            one[field] = [v + change for v in value] if isinstance(value, list) else value + change
        results["settings"] = {"sample_rate": rate}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    ours, theirs = known("a", 0.0), known("bb", 0.4)
    compare(ours, known("ccc", 0.05), tmp_path / "same")
    with pytest.raises(UserError) as error:
        compare(ours, theirs, tmp_path / "out")
    (field,) = what
    assert str(error.value) == (
        "a and bb are of other mixtures: 2 of 2 items differ in level, music/0 by 0.4 dB in "
        f"{field}"
    )
    assert not (tmp_path / "out").exists()
    compare(ours, known("dd", 0.4, 48_000), tmp_path / "similar")
    assert not capsys.readouterr().err
    compare(ours, known("ee", -2.0, 48_000), tmp_path / "doubtful")
    err = capsys.readouterr().err
    assert "warning: a and ee may be of other mixtures: 2 of 2 items differ in level" in err
    assert "read at 16000 and 48000 Hz" in err


def test_silence_in_a_report_is_warned_of(tmp_path, capsys):
    ours, theirs = report(tmp_path / "a", [1.0] * 2), report(tmp_path / "b", [0.0] * 2)
    results = json.loads((theirs / "results.json").read_text())
    results["silent"] = [{"id": "0", "setting": "music", "row": "model/none/text"}]
    results["items"][0]["silent"] = True
    (theirs / "results.json").write_text(json.dumps(results))
    compare(ours, theirs, tmp_path / "out")
    assert "warning: 1 separated stems of b are digital silence" in capsys.readouterr().err
    assert not found(tmp_path / "out", column="silent")


def test_results_without_a_common_score_are_refused(tmp_path, capsys):
    ours = report(tmp_path / "a", [1.0])
    (tmp_path / "b.csv").write_text("id,score\n0,1\n")
    out = str(tmp_path / "out")
    assert main(["--compare", str(ours), str(tmp_path / "b.csv"), "--out", out]) == 2
    assert "have no score of an item in common" in capsys.readouterr().err
    assert main(["--compare", str(ours), str(tmp_path / "none"), "--out", out]) == 2
    assert "no results at" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("id,score\n1,1\n")
    tables = [str(tmp_path / name) for name in ("b.csv", "c.csv")]
    assert main(["--compare", *tables, "--out", out]) == 2
    assert "they are of other items, such as '0' and '1'" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("id,mark\n0,1\n")
    assert main(["--compare", *tables, "--out", out]) == 2
    assert "their scores are score and mark" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
