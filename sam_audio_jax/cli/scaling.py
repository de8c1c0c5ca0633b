"""Runs a scaling study and forecasts from it: `sam-audio scaling STUDY.py --workdir DIR`.

Trains every run of the study, the cheapest first, each in its own workdir DIR/runs/NAME, and writes
DIR/table.json, DIR/results.json and DIR/report.html. The same call goes on after a stop, and with
more widths, steps or seeds it trains only what is new. Nothing is trained with --plan, which says
what the study costs, with --jobs, which prints a command for each run on a slice, with --table, and
with --scores, which separates and scores mixtures with what the runs have kept, on one host.
On several hosts run the same command with --run NAME on each.
"""

import argparse
import re
import shlex
import sys

from sam_audio_jax import config, distributed
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli import train
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.in_training import check_evaluation
from sam_audio_jax.files import check_writable, read_object, write_json
from sam_audio_jax.plan import chips
from sam_audio_jax.scaling import budget, conditions, study_page
from sam_audio_jax.scaling.measured import StudyFolder, rows
from sam_audio_jax.scaling.scores import measure_scores
from sam_audio_jax.scaling.study import StudyConfig, StudyRun, runs
from sam_audio_jax.train.progress import NotFinite

SCRIPTS = ("queued_resources", "gke_xpk", "slurm")  # of launch/tpu


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the flags that are left for the study."""
    parser = config.ArgumentParser(
        __doc__,
        command="scaling",
        epilog="Every other --FIELD VALUE overrides a field of the study, --base.FIELD VALUE one "
        "of its trainings.",
    )
    parser.add_argument("config", metavar="STUDY", help="a file or a shipped name")
    parser.add_argument("--workdir", type=config.local_folder, help="of the study; made if absent")
    parser.add_argument("--run", nargs="+", metavar="NAME", help="train these runs only")
    parser.add_argument("--plan", action="store_true", help="print what the study costs")
    parser.add_argument("--topology", help="slice of the plan: v5e-8, v5p:4x8x8, ...")
    parser.add_argument("--mfu", type=float, help="share of the peak that the plan counts with")
    parser.add_argument("--price", type=float, help="of a chip and hour")
    parser.add_argument(
        "--time", type=at_least(1), metavar="STEPS", help="time so many steps of each size here"
    )
    parser.add_argument(
        "--jobs", choices=SCRIPTS, help="print a command of launch/tpu for each run"
    )
    parser.add_argument("--table", action="store_true", help="read the runs again, train nothing")
    parser.add_argument(
        "--scores", action="store_true", help="measure separation scores of trained runs"
    )
    return parser.parse_known_args(argv)


@command
def main(argv: list[str]) -> None:
    """Plans, prints jobs, or trains and reports."""
    options, flags = read_options(argv)
    check_together(options)
    study = config.from_cli([options.config, *flags], StudyConfig)
    planned = chosen(runs(study), options.run)
    if options.plan:
        print_plan(options, planned)
        return
    if not options.workdir:
        raise UserError("no --workdir given; name the folder of the study")
    folder = StudyFolder(options.workdir)
    if options.jobs:
        for run in planned:
            if not folder.is_done(run):
                print(job(options, flags, run))
        return
    check_evaluation(planned[0].config)
    if (options.scores or options.table) and not folder.config_file.is_file():
        option = "--scores" if options.scores else "--table"
        raise UserError(f"{folder.path} holds no study: train it without {option} first")
    if options.scores:
        claim(folder, study)
        measure_scores(study, folder, planned)
        report(folder, study)
        return
    keep_freed_memory()
    distributed.initialize()
    claim(folder, study)
    if not options.table:
        train_all(folder, planned)
    distributed.run_on_first(lambda: report(folder, study))


def check_together(options: argparse.Namespace) -> None:
    """Raises `UserError` for options that would have no effect beside the others."""
    ways = [f"--{name}" for name in ("plan", "jobs", "table", "scores") if getattr(options, name)]
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} do not go together: give one of them")
    needs = {"topology": "plan", "time": "plan", "mfu": "topology", "price": "topology"}
    for name, other in needs.items():
        if getattr(options, name) is not None and not getattr(options, other):
            raise UserError(f"--{name} has no effect without --{other}")


def chosen(planned: list[StudyRun], names: list[str] | None) -> list[StudyRun]:
    """The named runs, or all. Raises `UserError` for a name that the study does not have."""
    known = {run.name: run for run in planned}
    for name in names or ():
        if name not in known:
            raise UserError(f"--run {name} is not of the study; it has: {', '.join(known)}")
    return [run for run in planned if names is None or run.name in names]


def print_plan(options: argparse.Namespace, planned: list[StudyRun]) -> None:
    """Prints operations, and hours and money by a rate that must be given."""
    rate = None
    if options.topology:
        target = chips.parse(options.topology)
        if options.mfu is None:
            raise UserError(f"--topology needs --mfu: {budget.published_note(target)}")
        rate = budget.Rate(target=target, mfu=options.mfu, price=options.price or 0.0)
    seconds = budget.timed_widths(planned, options.time) if options.time else None
    for line in budget.plan_lines(planned, rate, seconds):
        print(line)
    if seconds:
        for width, value in seconds.items():
            print(f"width {width}: {value:.4g} s a step here")


def job(options: argparse.Namespace, flags: list[str], run: StudyRun) -> str:
    """The command that trains one run on a slice, by a script of launch/tpu.

    Names in a cloud have small letters, digits and dashes alone, which the names of rates and
    budgets do not.
    """
    name = re.sub(r"[^a-z0-9]+", "-", f"scaling-{run.name}")
    words = ["launch/scaling.py", options.config, "--workdir", str(options.workdir)]
    words += ["--run", run.name, *flags]
    return f"NAME={name} bash launch/tpu/{options.jobs}.sh {shlex.join(words)}"


def claim(folder: StudyFolder, study: StudyConfig) -> None:
    """Takes the folder for the study. Raises `UserError` where it is of another one."""

    def write() -> None:
        if folder.config_file.is_file():
            saved = read_object(folder.config_file)
            if differing := config.differences(saved, study):
                raise UserError(
                    f"{folder.path} belongs to another study ({'; '.join(differing)}); "
                    "take another --workdir or the saved values"
                )
            before = config.from_dict(StudyConfig, saved)
            if changed := conditions.changes(folder, before, study):
                raise UserError(
                    f"{folder.path} has measured losses that this study would not go with "
                    f"({'; '.join(changed)}); take another --workdir or the saved values"
                )
        check_writable(folder.path, "--workdir")
        conditions.keep_contents(folder, study)
        write_json(folder.config_file, config.to_dict(study))

    distributed.run_on_first(write)


def train_all(folder: StudyFolder, planned: list[StudyRun]) -> None:
    """Trains the runs that are not done; returns after a signal, when the current one is saved."""
    for number, run in enumerate(planned, 1):
        if distributed.broadcast_bool(folder.is_done(run)):
            continue
        print(f"run {number} of {len(planned)}: {run.name}", file=sys.stderr, flush=True)
        try:
            train.run(folder.workdir(run).path, run.config)
        except NotFinite as error:
            reason = str(error)
            distributed.run_on_first(
                lambda run=run, why=reason: folder.mark_diverged(run.name, why)
            )
            print(f"run {run.name} diverged: {reason}", file=sys.stderr)
            continue
        if not distributed.broadcast_bool(folder.is_done(run)):
            print("the study is stopped: the same call goes on", file=sys.stderr)
            return


def report(folder: StudyFolder, study: StudyConfig) -> None:
    """Writes table, results and page, and prints what they say."""
    measured = rows(study, runs(study), folder)
    write_json(folder.table_file, [row.as_dict() for row in measured])
    results = study_page.write_results(folder, study, measured)
    for line in study_page.summary_lines(results):
        print(line)
    for line in study_page.forecast_lines(results.get("losses", {}).get("all", {})):
        print(line)
    for name, reason in results["left_out"].items():
        print(f"left out: {name}, {reason}")
    for name, text in results["definitions"].items():
        print(f"  {name}: {text}")
    print(f"report: {folder.report_file}")
