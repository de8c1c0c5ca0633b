"""Separation scores of a study: which states are evaluated, what is read, fitted and drawn."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sam_audio_jax.cli import main
from sam_audio_jax.cli.scaling import claim
from sam_audio_jax.eval.file_stamps import contents_of
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.scaling import scores
from sam_audio_jax.scaling.analysis import analyse, as_loss, as_score
from sam_audio_jax.scaling.charts import Series, chart
from sam_audio_jax.scaling.law import Law
from sam_audio_jax.scaling.measured import StudyFolder, read_scores, rows, score_conditions
from sam_audio_jax.scaling.study import StudyConfig, StudyRun, runs
from sam_audio_jax.scaling.study_page import score_line, write_page
from sam_audio_jax.workdir import METADATA, Workdir
from tests.eval.listing import make_folder, three_lines
from tests.scaling.test_study import FILE, study, write_run
from tests.scaling.test_study import _formula as _formula

RATIO = Law(E=0.4, A=3.0, alpha=0.3, B=4.0, beta=0.45)  # of powers
CONDITIONS: dict[str, dict] = {}
SCORED = {"refine": "wiener", "judge": "judge-tiny"}


def conditions_of(config: StudyConfig) -> dict:
    """`score_conditions`, which read a list, once for each study."""
    if (name := str(config)) not in CONDITIONS:
        CONDITIONS[name] = score_conditions(config)
    return CONDITIONS[name]


def evaluation(config: StudyConfig, run: StudyRun, step: int) -> dict:
    """What an evaluation of a state has found, by the planted law."""
    n, seconds = run.parameters, run.seconds(step)
    sisdri = -10 * np.log10(float(RATIO(n, seconds)))
    values = {("none", "sisdri"): -35.0, ("wiener", "sisdri"): sisdri}
    values |= {("wiener", "judge_overall"): 5 - float(RATIO(n, seconds)), ("wiener", "logmel"): 1.0}
    table = [
        {"row": f"model/{refine}/text", "setting": "all", "column": column, "mean": value}
        for (refine, column), value in values.items()
    ]
    return {"settings": conditions_of(config), "table": table}


def write_evaluation(folder: StudyFolder, config: StudyConfig, run: StudyRun, step: int) -> None:
    out = folder.scores(run, step)
    out.mkdir(parents=True)
    (out / "results.json").write_text(json.dumps(evaluation(config, run, step)))


def measured(tmp_path, config, steps_of):
    """The rows of a study whose runs have evaluations at some of their steps."""
    folder, planned = StudyFolder(tmp_path), runs(config)
    for run in planned:
        write_run(folder, run)
        for step in steps_of(run):
            write_evaluation(folder, config, run, step)
    return rows(config, planned, folder)


def test_scores_at_one_amount_of_data_have_a_trend_and_no_law(tmp_path):
    config = study(**SCORED)
    found = measured(tmp_path, config, lambda run: run.measured[-1:])
    assert [bool(row.scores) for row in found[:5]] == [False] * 4 + [True]
    assert sorted(found[4].scores) == ["judge/all/text", "sisdri/all/text"]
    results = analyse(config, found)
    assert "as a mask on the mixture" in results["definitions"]["scores"]
    one = results["scores"]["sisdri/all/text"]
    assert "of 5 sizes and 1 amounts" in one["missing"]
    assert "law" not in one
    (trend,) = one["by_size"]
    assert 0 < trend["low"] < trend["per_doubling"] < trend["high"]
    line = score_line("sisdri/all/text", one)
    assert "with each doubling of N at 1.78 h, 5 runs. No law is fitted: a fit of L(N, D)" in line
    page = write_page(results, found)
    assert page.count("<svg") == 2 + 2  # both scores against N
    assert "Judge of the target, overall, 1 to 5: all, by text, over N" in page


def test_scores_of_all_kept_states_recover_their_law(tmp_path):
    config = study(**SCORED)
    found = measured(tmp_path, config, lambda run: run.measured)
    results = analyse(config, found)
    for name in ("sisdri/all/text", "judge/all/text"):
        law = results["scores"][name]["law"]
        assert law["alpha"] == pytest.approx(RATIO.alpha, rel=1e-3), name
        assert law["E"] == pytest.approx(RATIO.E, rel=1e-3), name
        assert "As a loss: S(N, D) = 0.4" in score_line(name, results["scores"][name])
    assert write_page(results, found).count("<svg") == 2 + 2 * 2  # against D as well


def test_scores_are_of_the_conditions_of_the_study(tmp_path):
    config = study(**SCORED)
    folder, run = StudyFolder(tmp_path), runs(config)[0]
    assert read_scores(config, folder, run, 100, score_conditions(config)) == {}
    write_evaluation(folder, config, run, 100)
    assert read_scores(config, folder, run, 100, score_conditions(config))["sisdri/all/text"] > -10
    raw = dataclasses.replace(config, refine="none")
    assert read_scores(raw, folder, run, 100, score_conditions(raw)) == {"sisdri/all/text": -35.0}
    sampler = dataclasses.replace(config.base.sampler, steps=7)
    for other in (
        dataclasses.replace(config, judge=""),
        dataclasses.replace(config, base=dataclasses.replace(config.base, eval_limit=3)),
        dataclasses.replace(config, base=dataclasses.replace(config.base, sampler=sampler)),
    ):
        assert read_scores(other, folder, run, 100, score_conditions(other)) == {}


def test_scores_are_of_the_mixtures_and_the_judge_that_are_there_now(tmp_path):
    """Names alone say neither: a list is corrected, a judge trained again in its folder."""
    bench, judge = tmp_path / "bench", tmp_path / "judge"
    make_folder(bench, three_lines())
    judge.mkdir()
    (judge / "model.safetensors").write_bytes(b"one")
    config = study(judge=str(judge))
    config = dataclasses.replace(
        config, base=dataclasses.replace(config.base, eval_bench=str(bench))
    )
    folder, run = StudyFolder(tmp_path / "study"), runs(config)[0]
    write_evaluation(folder, config, run, 100)
    assert read_scores(config, folder, run, 100, score_conditions(config))
    (judge / "model.safetensors").write_bytes(b"another")
    assert read_scores(config, folder, run, 100, score_conditions(config)) == {}
    (judge / "model.safetensors").write_bytes(b"one")
    make_folder(bench, three_lines()[:2])
    assert read_scores(config, folder, run, 100, score_conditions(config)) == {}
    shutil.rmtree(bench)  # where only the table is written
    assert read_scores(config, folder, run, 100, score_conditions(config))


def test_a_score_and_its_loss_are_one_another():
    for name, score in (("sisdri/all/text", -3.2), ("judge/sfx/text+span", 2.4)):
        assert float(as_score(name, as_loss(name, score))) == pytest.approx(score)


def test_kept_states_without_scores_are_evaluated_once(tmp_path, monkeypatch, capsys):
    """What is scored already, is not measured by the study, or diverged, is left alone."""
    config = study(widths=(16, 32), seeds=2, seeds_up_to=32)
    folder, planned = StudyFolder(tmp_path / "out"), runs(config)
    for run in planned:
        write_run(folder, run)
        for step in (150, 800, 1600):
            saved = folder.workdir(run).checkpoint(step)
            saved.mkdir(parents=True)
            (saved / METADATA).write_text("{}")
    write_evaluation(folder, config, planned[0], 1600)
    folder.mark_diverged(planned[1].name, "it was not finite")
    seen = []

    def pretrained(name, *, mesh):
        assert mesh is None
        return name

    def measure(config, folder, run, step, model, scorers):
        assert model == str(Workdir(folder.path / "runs" / run.name).checkpoint(step))
        assert scorers == {}
        seen.append((run.name, step))
        write_evaluation(folder, config, run, step)

    monkeypatch.setattr(SAMAudio, "from_pretrained", pretrained)
    monkeypatch.setattr(scores, "_measure", measure)
    monkeypatch.setattr("sam_audio_jax.parallel.inference_mesh", lambda *_: None)
    file = tmp_path / "study.py"
    file.write_text(FILE)
    command = ["scaling", str(file), "--workdir", str(folder.path), "--scores"]
    command += ["--widths", "16", "32"]
    claim(folder, config)
    assert main(command) == 0
    first, _, *others = (run.name for run in planned)
    assert seen == [(first, 800)] + [(name, step) for name in others for step in (800, 1600)]
    assert main(command) == 0
    assert len(seen) == 5
    table = json.loads(folder.table_file.read_text())
    assert sum(bool(row["scores"]) for row in table) == 6
    capsys.readouterr()
    assert main([*command, "--refine", "mask"]) == 2
    assert "none" in capsys.readouterr().err


def test_scores_without_kept_states_are_refused(tmp_path, capsys):
    file = tmp_path / "study.py"
    file.write_text(FILE)
    folder = StudyFolder(tmp_path / "out")
    command = ["scaling", str(file), "--workdir", str(folder.path), "--scores"]
    assert main(command) == 2
    assert "holds no study: train it without --scores first" in capsys.readouterr().err
    assert not folder.path.exists()
    claim(folder, study())
    assert main(command) == 2
    assert "none of the 7 runs" in capsys.readouterr().err
    assert not folder.table_file.exists()


def test_axes_may_be_linear():
    text = chart(
        "a & b", [Series("x < y", 0, [1.0, 10.0, 100.0], [-1.0, 0.0, 1.0])], logarithmic=False
    )
    assert "a &amp; b" in text
    assert "x&nbsp;&lt;&nbsp;y" in text
    heights = [float(part.split('"')[0]) for part in text.split('cy="')[1:]]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert heights[0] > heights[2]
    assert "<polyline" not in text


def test_no_name_has_no_contents(tmp_path, monkeypatch):
    """A study without a judge does not depend on the folder in which it is run."""
    (tmp_path / "file").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert contents_of("") == ""
    assert contents_of(str(tmp_path)) != ""
