"""Studies: which runs there are, what their workdirs say, and what the page says of it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sam_audio_jax.cli import main
from sam_audio_jax.cli.scaling import claim
from sam_audio_jax.data.config import DataConfig, RecipeConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.plan import operations
from sam_audio_jax.scaling.analysis import analyse, definitions
from sam_audio_jax.scaling.law import Law
from sam_audio_jax.scaling.measured import (
    MeasuredLoss,
    StudyFolder,
    divergence,
    rows,
    unique_seconds,
)
from sam_audio_jax.scaling.prediction import held_out, without_least_data
from sam_audio_jax.scaling.rates import best_rates, rate_lines
from sam_audio_jax.scaling.study import StudyConfig, runs
from sam_audio_jax.scaling.study_page import law_line, summary_lines, write_page
from sam_audio_jax.train.config import OptimConfig
from tests.train.tiny import CONFIG
from tools import draw_study

BASE = dataclasses.replace(
    CONFIG, optim=OptimConfig(warmup_steps=10), eval_bench="embedded", batch=4
)
WIDTHS, STEPS = (16, 32, 48, 64, 96), (100, 200, 400, 800, 1600)
LAW = Law(E=0.6, A=4.0, alpha=0.35, B=6.0, beta=0.4)
ROW = MeasuredLoss("w16", 16, 0, 1e-3, 1000, 100, 400.0, None, 10**9, {"all": 1.0}, {}, "")
FILE = """
import dataclasses
from sam_audio_jax.scaling.study import StudyConfig
from sam_audio_jax.train.config import OptimConfig
from tests.train.tiny import CONFIG as TINY
BASE = dataclasses.replace(TINY, optim=OptimConfig(warmup_steps=10), eval_bench="embedded", batch=4)
CONFIG = StudyConfig(
    base=BASE,
    widths=(16, 32, 48, 64, 96),
    steps=(100, 200, 400, 800, 1600),
    seeds=2,
    seeds_up_to=32,
    forecasts=((128, 10.0),),
    forecast_budgets=(1e15,),
)
"""


@pytest.fixture(autouse=True)
def _formula(monkeypatch):
    """Operations by a formula, as counting them takes a second for each size."""

    def of_step(config):
        dit = config.separator.dit
        return 6 * 16 * dit.width**2 * dit.depth * config.batch * 25

    monkeypatch.setattr(operations, "of_step", of_step)


def study(**fields) -> StudyConfig:
    return StudyConfig(**({"base": BASE, "widths": WIDTHS, "steps": STEPS} | fields))


def write_run(folder: StudyFolder, run, *, until: int = 10**9, noise: float = 0.0) -> None:
    """What a training would have logged, with the losses of the law."""
    workdir = folder.workdir(run)
    workdir.path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(run.config.seed + run.width)
    lines = [{"step": 20 * k, "group": "train", "loss": 2.0 / k} for k in range(1, 6)]
    for step in run.measured:
        loss = float(LAW(run.parameters, run.seconds(step)) * np.exp(noise * rng.normal()))
        if step <= until:
            values = {"flow_loss/averaged/all": loss, "flow_loss/live/all": 1.1 * loss}
            lines.append({"step": step, "group": "eval", **values})
    workdir.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_runs_of_each_design():
    names = [run.name for run in runs(study(widths=(16, 32), seeds=2, seeds_up_to=16))]
    assert names == ["w16-s0", "w16-s1", "w32-s0"]
    long = runs(study(widths=(16,)))[0]
    assert long.config.steps == 1600
    assert long.config.eval_at == long.measured == STEPS
    grid = runs(study(widths=(16,), steps=(100, 200), design="grid"))
    assert [(run.name, run.measured) for run in grid] == [
        ("w16-n100-s0", (100,)),
        ("w16-n200-s0", (200,)),
    ]
    assert len({run.config.seed for run in grid}) == 2  # else one would begin as the other
    flat = runs(study(widths=(16, 32), steps=(), budgets=(1e11, 1e12), design="isoflop"))
    for run in flat:
        budget = 1e11 if "c1e+11" in run.name else 1e12
        assert run.operations(run.measured[0]) == pytest.approx(budget, rel=0.02)
    swept = runs(study(widths=(16,), steps=(100,), rates=(1e-3, 2e-3), design="rates"))
    assert [run.config.optim.peak_lr for run in swept] == [1e-3, 2e-3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": ()}, "widths is empty"),
        ({"steps": (200, 100)}, "must rise"),
        ({"design": "isoflop"}, "budgets is empty"),
        ({"design": "rates", "rates": (1e-3,)}, "must be one number"),
        ({"base": dataclasses.replace(BASE, eval_bench="")}, "eval_bench is empty"),
        ({"widths": (20,)}, "must be a multiple of 8"),
        ({"steps": (15, 100)}, "within twice the warm-up"),
    ],
)
def test_studies_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        runs(study(**fields))


def test_a_study_from_its_runs_to_its_page(tmp_path, capsys):
    """Half-done, then done in another order, then with a size more: the same rows each time."""
    config = tmp_path / "study.py"
    config.write_text(FILE)
    folder = StudyFolder(tmp_path / "out")
    command = ["scaling", str(config), "--workdir", str(folder.path), "--table"]
    small = [*command, "--widths", "16", "32", "48", "64"]
    planned = runs(study(seeds=2, seeds_up_to=32))
    assert main(small) == 2
    assert "holds no study: train it without --table first" in capsys.readouterr().err
    assert not folder.path.exists()
    claim(folder, study())
    for run in planned[:2]:
        write_run(folder, run, until=400, noise=0.002)
    assert main(small) == 0
    half = json.loads(folder.table_file.read_text())
    assert [row["step"] for row in half] == [100, 200, 400] * 2
    for run in reversed(planned):
        write_run(folder, run, noise=0.002)
    assert main(small) == 0
    whole = json.loads(folder.table_file.read_text())
    assert [row for row in whole if row["run"] == half[0]["run"]][:3] == half[:3]
    assert main(command) == 0  # a width more
    table = json.loads(folder.table_file.read_text())
    assert table[: len(whole)] == whole
    assert len(table) == (5 + 2) * 5
    results = json.loads(folder.results_file.read_text())["losses"]["all"]
    test = results["held_out"]
    assert (test["run"], test["inside"]) == ("w96-s0", True)
    assert test["error_of_spread"] < min(0.1, test["naive_error_of_spread"])
    assert "times in N" in test["extrapolated"]
    assert results["intervals"]["alpha"]["low"] < LAW.alpha < results["intervals"]["alpha"]["high"]
    (forecast,) = results["forecasts"]
    assert forecast["loss"]["low"] < forecast["loss"]["value"] < forecast["loss"]["high"]
    text = capsys.readouterr().out
    assert "of the spread" in text
    assert "extrapolated" in text
    page = folder.report_file.read_text()
    assert page.count("<svg") == 2
    assert "http" not in page  # it needs no other file
    shutil.rmtree(folder.path / "runs")
    for path in (folder.report_file, folder.results_file):
        path.unlink()
    assert draw_study.main([str(folder.path)]) == 0
    assert folder.report_file.read_text() == page
    assert json.loads(folder.results_file.read_text())["losses"]["all"] == results
    folder.table_file.write_text('[{"run": "w16"}]')
    assert draw_study.main([str(folder.path)]) == 2
    assert main([*command, "--base.batch", "8"]) == 2
    assert "belongs to another study (base.batch: saved 4, now 8)" in capsys.readouterr().err


def test_a_diverged_run_is_marked_and_left_out(tmp_path):
    folder, config = StudyFolder(tmp_path), study()
    planned = runs(config)
    for run in planned:
        write_run(folder, run)
    folder.mark_diverged(planned[1].name, "50 steps in a row were not finite")
    assert folder.is_done(planned[1])
    measured = rows(config, planned, folder)
    results = analyse(config, measured)
    assert results["left_out"] == {planned[1].name: "50 steps in a row were not finite"}
    assert results["losses"]["all"]["runs"] == len(planned) - 1
    assert "50 steps in a row" in write_page(results, measured)
    train = [{"loss": 1.0}, {"loss": 1.2}, {"loss": 3.0}, {"loss": 3.0}]
    assert "rose from 1" in divergence(train, [], "averaged")
    assert not divergence(train[::-1], [], "averaged")
    risen = [{"step": s, "flow_loss/live/all": v} for s, v in ((1, 1.0), (2, 1.6))]
    assert "after 2 steps is 1.6" in divergence([], risen, "live")


def test_the_readings_of_the_cache_are_of_its_own_length():
    cached = study(base=dataclasses.replace(BASE, data=DataConfig(cache="CACHE")))

    def words(seconds, **fields):
        row = dataclasses.replace(
            ROW, seconds=seconds, unique_seconds=min(seconds, 7200.0), **fields
        )
        return definitions(cached, [ROW, row])["D"]

    assert "holds 2.00 h: the longest run reads 25 % of it" in words(1800.0, cache_seconds=7200.0)
    assert "holds 2.00 h: the longest run reads 100 % of it" in words(7200.0, cache_seconds=7200.0)
    thrice = "holds 2.00 h: the longest run reads it 3.0 times, and repeated mixtures count"
    assert thrice in words(21600.0, cache_seconds=7200.0)
    assert thrice in words(21600.0)  # a table of an earlier version
    assert "holds" not in words(1800.0)  # which does not say how long the cache is
    assert "holds" not in definitions(cached, [])["D"]


def test_the_caches_of_recipes_are_read_too(monkeypatch):
    """Each by the length of its own records, of which examples are crops."""
    index = {"samples": 24_000, "sample_rate": 800}

    class Kept(list):
        def __init__(self, folder):
            super().__init__(range({"one": 40, "two": 80}[folder]))
            self.index = index

    monkeypatch.setattr("sam_audio_jax.scaling.measured.Cache", Kept)
    parts = tuple(
        RecipeConfig(name=name, cache=name, weight=weight)
        for name, weight in (("one", 1.0), ("two", 2.0), ("never", 0.0))
    )
    blended = study(base=dataclasses.replace(BASE, data=DataConfig(blend=parts)))
    assert unique_seconds(blended) == 120 * 30.0
    row = dataclasses.replace(ROW, seconds=7200.0, cache_seconds=3600.0)
    found = definitions(blended, [row])
    assert "holds 1.00 h: the longest run reads it 2.0 times" in found["D"]
    assert "codec and teacher ran once for the cache" in found["C"]
    assert unique_seconds(study()) is None


def test_too_few_runs_give_a_sentence_and_no_law(tmp_path):
    config = study(widths=(16, 32))
    folder, planned = StudyFolder(tmp_path), runs(config)
    lines = summary_lines(analyse(config, rows(config, planned, folder)))
    assert lines == ["No run is measured yet."]
    for run in planned:
        write_run(folder, run)
    (line,) = summary_lines(analyse(config, rows(config, planned, folder)))
    assert "3 or more sizes" in line


def test_best_rates_are_minima_of_parabolas_and_say_when_the_sweep_is_too_narrow():
    config = study(
        widths=(16, 32), steps=(100,), rates=(1e-3, 2e-3, 4e-3, 8e-3), design="rates", seeds=3
    )
    measured = []
    for run in runs(config):
        best = 3e-3 * 1.1**run.config.seed if run.width == 16 else 5e-4
        loss = 1 + 0.1 * np.log(run.config.optim.peak_lr / best) ** 2
        measured.append(
            dataclasses.replace(
                ROW,
                width=run.width,
                rate=run.config.optim.peak_lr,
                seed=run.config.seed,
                losses={"all": loss},
            )
        )
    narrow, wide = best_rates(measured)[::-1]
    assert wide["best"] == pytest.approx(3.3e-3, rel=1e-6)
    assert wide["of_seeds"] == pytest.approx([3e-3, 3.3e-3, 3.63e-3], rel=1e-6)
    assert (wide["inside"], narrow["inside"], wide["seeds"]) == (True, False, 3)
    assert (narrow["of_seeds"], narrow["spreads"]) == ([None] * 3, [0.0] * 4)
    assert min(wide["spreads"]) > 0
    moved = rate_lines([wide, narrow])
    assert "(0.003 to 0.00363 by single seeds)" in moved[0]
    assert "AT THE END of the sweep" in moved[1]
    assert moved[2].endswith("by a factor of at least 3.30.")
    assert rate_lines([wide, wide])[2].endswith("by a factor of 1.00.")
    # The highest of the best rates may in truth be lower.
    lower = [one | {"best": best} for one, best in ((wide, 5e-4), (narrow, 1e-3))]
    assert rate_lines(lower)[2].endswith("by a factor of about 2.00.")
    results = analyse(config, measured)
    cell = f"{wide['losses'][1]:.4f} ({wide['spreads'][1]:.4f})"
    assert cell in write_page(results, measured)
    alone = [row for row in measured if row.seed == 0]
    one_seed = f"{best_rates(alone)[0]['losses'][1]:.4f} (1 seed)"
    assert one_seed in write_page(analyse(config, alone), alone)


def test_the_largest_size_is_predicted_at_every_amount_of_data_and_without_the_least():
    """The law without the least amount shows that the first losses are not of the law."""
    config = study()
    measured, losses = [], []
    for run in runs(config):
        for step in run.measured:
            n, seconds = run.parameters, run.seconds(step)
            measured.append(
                dataclasses.replace(
                    ROW,
                    run=run.name,
                    width=run.width,
                    parameters=n,
                    step=step,
                    seconds=seconds,
                    operations=run.operations(step),
                )
            )
            losses.append(float(LAW(n, seconds)))
    tests = held_out(measured, losses)["equal_data"]
    assert [round(one["hours"] * 3600) for one in tests] == [4 * step for step in STEPS]
    for one in tests:
        assert one["error_of_spread"] < 0.01 < one["naive_error_of_spread"]
    least = min(row.seconds for row in measured)
    wrong = [
        1.2 * value if row.seconds == least else value
        for row, value in zip(measured, losses, strict=True)
    ]
    found = analyse(config, _with_losses(measured, wrong))["losses"]["all"]
    without = found["without_least_data"]
    assert without["hours"] == least / 3600
    assert without["law"]["beta"] == pytest.approx(LAW.beta, rel=1e-3)
    assert "beta" in without["moved"]
    assert (
        "beta"
        not in without_least_data(
            measured, losses, {name: {"low": 0.0, "high": 9.0} for name in ("E", "alpha", "beta")}
        )["moved"]
    )


def test_of_runs_of_one_budget_the_largest_size_is_held_out(tmp_path):
    """Whole steps leave them different operations, here the most to the smallest size."""
    config = study(design="isoflop", steps=(), budgets=(3e11, 1e12, 3e12, 1e13))
    folder, planned = StudyFolder(tmp_path), runs(config)
    for run in planned:
        write_run(folder, run)
    measured = rows(config, planned, folder)
    most = max(measured, key=lambda row: row.operations)
    assert most.width == min(WIDTHS)
    test = held_out(measured, [row.losses["all"] for row in measured])
    assert (test["run"], test["naive_run"]) == ("w96-c1e+13-s0", "w64-c1e+13-s0")
    assert "times in N" in test["extrapolated"]


def _with_losses(measured, losses):
    return [
        dataclasses.replace(row, losses={"all": value})
        for row, value in zip(measured, losses, strict=True)
    ]


def test_a_plan_says_what_a_study_costs_and_needs_a_share_of_the_peak(tmp_path, capsys):
    config = tmp_path / "study.py"
    config.write_text(FILE)
    plan = ["scaling", str(config), "--plan"]
    assert main([*plan, "--topology", "v5e-8", "--mfu", "0.1", "--price", "1.2"]) == 0
    text = capsys.readouterr().out
    planned = runs(study(seeds=2, seeds_up_to=32))
    total = sum(run.operations(1600) for run in planned)
    hours = total / (197e12 * 0.1) / 3600
    assert f"7 runs: {total:.4g} operations; {hours:.4g} chip-hours of v5e:2x4" in text
    assert f"{hours * 1.2:.4g} at 1.2 a chip and hour" in text
    assert main([*plan, "--topology", "v5e-8"]) == 2
    assert "--topology needs --mfu: the best published is 66.9%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "--price", "1.2"], "--price has no effect without --topology"),
        (["--plan", "--mfu", "7"], "--mfu has no effect without --topology"),
        (["--time", "3"], "--time has no effect without --plan"),
        (["--topology", "v5e-8", "--mfu", "0.1"], "--topology has no effect without --plan"),
        (["--plan", "--jobs", "slurm"], "--plan and --jobs do not go together"),
        (["--table", "--scores"], "--table and --scores do not go together"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_trained(
    arguments, message, tmp_path, capsys
):
    folder = tmp_path / "out"
    assert main(["scaling", "scaling_tiny", "--workdir", str(folder), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not folder.exists()


def test_intervals_of_few_runs_are_said_to_be_too_narrow():
    interval = {"value": 1.0, "low": 0.9, "high": 1.1}
    found = {
        **{"law": dict.fromkeys(("E", "A", "alpha", "B", "beta"), 1.0), "points": 12},
        **{"intervals": dict.fromkeys(("E", "alpha", "beta"), interval)},
        **{"undetermined": False, "outliers": 0},
    }
    note = "Of 3 runs the interval of alpha is too narrow: take 4 or more."
    assert note in law_line(found | {"runs": 3})
    assert "too narrow" not in law_line(found | {"runs": 4})


def test_jobs_are_commands_for_the_runs_that_are_not_done(tmp_path, capsys):
    config = tmp_path / "study.py"
    config.write_text(FILE)
    folder = StudyFolder(tmp_path / "out")
    planned = runs(study(seeds=2, seeds_up_to=32))
    write_run(folder, planned[0])
    command = ["scaling", str(config), "--workdir", str(folder.path)]
    assert main([*command, "--jobs", "queued_resources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(planned) - 1
    assert lines[0].startswith(
        f"NAME=scaling-{planned[1].name} bash launch/tpu/queued_resources.sh launch/scaling.py"
    )
    assert f"--run {planned[1].name}" in lines[0]
    assert main([*command, "--run", "w7", "--table"]) == 2
    assert "--run w7 is not of the study; it has: w16-s0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "name", "run"),
    [
        (["--rates", "1e-5", "2e-4", "--steps", "30"], "scaling-w16-r1e-05-s0", "w16-r1e-05-s0"),
        (["--rates", "2e-4", "--steps", "30"], "scaling-w16-r0-0002-s0", "w16-r0.0002-s0"),
        (["--budgets", "1e12"], "scaling-w16-c1e-12-s0", "w16-c1e+12-s0"),
    ],
)
def test_names_of_jobs_are_what_clouds_allow(flags, name, run, tmp_path, capsys):
    """Resources of Cloud TPU and Kubernetes: small letters, digits and dashes (RFC 1035)."""
    config = tmp_path / "study.py"
    config.write_text(FILE)
    design = "isoflop" if "--budgets" in flags else "rates"
    command = ["scaling", str(config), "--workdir", str(tmp_path / "out"), "--jobs", "gke_xpk"]
    assert main([*command, "--design", design, "--widths", "16", *flags]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"NAME={name} bash launch/tpu/gke_xpk.sh ")
    assert f"--run {run} " in line
