"""The table of a study: one row for each measured loss, read from the workdirs of its runs.

    DIR/study.json          the study's config at its newest start
    DIR/caches.json         what its latent caches hold: number of items and recipe; and what
                            distinguishes its held-out mixtures
    DIR/runs/NAME/          the workdir of one run, as of `sam-audio train`
    DIR/diverged.json       {NAME: why it was ended}
    DIR/scores/NAME-STEP/   the evaluation of a state of a run, as of `sam-audio evaluate`
    DIR/table.json          the rows
    DIR/results.json        fits and forecasts; DIR/report.html shows them

The table is a function of what the runs have logged and of their evaluations, so that a study that
was killed and goes on has the same.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from sam_audio_jax.data.labels import LabelCache
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.file_stamps import contents_of
from sam_audio_jax.eval.suite import contents_of_bench
from sam_audio_jax.files import read_object, write_json
from sam_audio_jax.scaling.study import StudyConfig, StudyRun
from sam_audio_jax.workdir import Workdir

LOSS = "flow_loss"
PROMPTS = ("text", "text+span")  # by which scores are measured
SISDRI, JUDGE = "sisdri", "judge"  # kinds of scores, and how an evaluation calls them
COLUMNS = {"sisdri": SISDRI, "judge_overall": JUDGE}
CONTENTS = "contents"  # among the conditions of scores
TAIL = 3  # lines of metrics at the end of a run whose training loss is looked at


@dataclasses.dataclass(frozen=True)
class MeasuredLoss:
    """One measurement: a run after a number of steps."""

    run: str
    width: int
    seed: int
    rate: float
    parameters: int  # N
    step: int
    seconds: float  # D
    unique_seconds: float | None  # of D, mixtures that differ; None: all do, their sounds repeat
    operations: int  # C
    losses: dict[str, float]  # flow loss by domain
    scores: dict[str, float]  # by KIND/DOMAIN/PROMPT: SI-SDR improvement in dB, judge's score
    diverged: str  # why the run is left out of fits; empty: it is not
    # Of the whole latent cache; None: there is none, or the table is older than the field.
    cache_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class StudyFolder:
    """The paths of a study."""

    path: pathlib.Path

    @property
    def config_file(self) -> pathlib.Path:
        return self.path / "study.json"

    @property
    def caches_file(self) -> pathlib.Path:
        return self.path / "caches.json"

    @property
    def table_file(self) -> pathlib.Path:
        return self.path / "table.json"

    @property
    def results_file(self) -> pathlib.Path:
        return self.path / "results.json"

    @property
    def report_file(self) -> pathlib.Path:
        return self.path / "report.html"

    @property
    def diverged_file(self) -> pathlib.Path:
        return self.path / "diverged.json"

    def workdir(self, run: StudyRun) -> Workdir:
        """The workdir of a run."""
        return Workdir(self.path / "runs" / run.name)

    def scores(self, run: StudyRun, step: int) -> pathlib.Path:
        """The folder of the evaluation of a run's state."""
        return self.path / "scores" / f"{run.name}-{step}"

    def diverged(self) -> dict[str, str]:
        """Why runs were ended, by their name."""
        return read_object(self.diverged_file) if self.diverged_file.is_file() else {}

    def mark_diverged(self, name: str, reason: str) -> None:
        """Notes that a run ended because its loss was not finite."""
        write_json(self.diverged_file, self.diverged() | {name: reason})

    def measured(self, run: StudyRun) -> set[int]:
        """The steps at which a run has been measured."""
        return _measured(self.workdir(run))

    def has_measurements(self) -> bool:
        """Whether a run, also one that the study no longer has, is measured at any step."""
        return any(_measured(Workdir(path)) for path in (self.path / "runs").glob("*"))

    def is_done(self, run: StudyRun) -> bool:
        """Whether a run needs no more training: it is measured at its last step, or diverged."""
        return run.measured[-1] in self.measured(run) or run.name in self.diverged()


def rows(study: StudyConfig, runs: list[StudyRun], folder: StudyFolder) -> list[MeasuredLoss]:
    """What has been measured so far, in the order of the runs and of their steps."""
    unique, conditions = unique_seconds(study), score_conditions(study)
    ended = folder.diverged()
    measurements = []
    for run in runs:
        workdir = folder.workdir(run)
        lines = {line["step"]: line for line in _lines(workdir, "eval")}
        evaluated = [lines[step] for step in run.measured if step in lines]
        reason = ended.get(run.name) or divergence(
            _lines(workdir, "train"), evaluated, study.weights
        )
        for line in evaluated:
            seconds = run.seconds(line["step"])
            measurements.append(
                MeasuredLoss(
                    run=run.name,
                    width=run.width,
                    seed=run.config.seed,
                    rate=run.config.optim.peak_lr,
                    parameters=run.parameters,
                    step=line["step"],
                    seconds=seconds,
                    unique_seconds=None if unique is None else min(unique, seconds),
                    operations=run.operations(line["step"]),
                    losses=_losses(line, study.weights),
                    scores=read_scores(study, folder, run, line["step"], conditions),
                    diverged=reason,
                    cache_seconds=unique,
                )
            )
    return measurements


def score_conditions(study: StudyConfig) -> dict[str, Any]:
    """What scores depend on besides the weights, as the settings of an evaluation name it.

    `CONTENTS` distinguishes what is behind the names of bench and judge.
    """
    return {
        "bench": study.base.eval_bench,
        "limit": study.base.eval_limit or None,
        "prompts": list(PROMPTS),
        "judge": study.judge,
        **dataclasses.asdict(study.base.sampler),
        CONTENTS: {"bench": bench_contents(study), "judge": contents_of(study.judge)},
    }


def bench_contents(study: StudyConfig) -> str:
    """Distinguishes the held-out mixtures of a study; "" where there are none to be read."""
    try:
        return contents_of_bench(study.base.eval_bench, study.base.eval_limit or None)
    except UserError:
        return ""


def read_scores(
    study: StudyConfig,
    folder: StudyFolder,
    run: StudyRun,
    step: int,
    conditions: Mapping[str, Any],
) -> dict[str, float]:
    """The scores of a state, KIND/DOMAIN/PROMPT; none if it was not evaluated in this way.

    `conditions` are `score_conditions` of the study, which read the list of its bench.
    """
    file = folder.scores(run, step) / "results.json"
    if not file.is_file():
        return {}
    results = read_object(file)
    settings, named = results["settings"], dict(conditions)
    # An evaluation of an earlier version says nothing of contents, nor does what is not here.
    saved, now = settings.get(CONTENTS, {}), named.pop(CONTENTS)
    if any(settings.get(name) != value for name, value in named.items()) or any(
        now[name] and value and now[name] != value for name, value in saved.items()
    ):
        return {}
    found = {}
    for cell in results["table"]:
        refine, prompt = cell["row"].removeprefix("model/").split("/")
        if refine == study.refine and cell["column"] in COLUMNS:
            found[f"{COLUMNS[cell['column']]}/{cell['setting']}/{prompt}"] = cell["mean"]
    return found


def unique_seconds(study: StudyConfig) -> float | None:
    """Seconds of mixtures in the latent caches, and of labels if these are all of the longest.

    None without any, as mixtures are then made anew.
    """
    data = study.base.data
    if not data.encoded:
        return None
    parts = data.parts
    kept = [Cache(part.cache) for part in parts if part.cache]
    kept += [LabelCache(part.labels, data.seed) for part in parts if part.labels.folder]
    return sum(len(one) * one.index["samples"] / one.index["sample_rate"] for one in kept)


def divergence(train: list[dict[str, Any]], evaluated: list[dict[str, Any]], weights: str) -> str:
    """Why a run has diverged, in words; empty for one that has not.

    The training loss is higher at the end than in the first line, or a held-out loss is not finite
    or half as high again as an earlier one.
    """
    values = [line["loss"] for line in train if line.get("loss") is not None]
    if len(values) > TAIL and (last := sum(values[-TAIL:]) / TAIL) > values[0]:
        return f"the training loss rose from {values[0]:.4g} to {last:.4g}"
    lowest = math.inf
    for line in evaluated:
        loss = _losses(line, weights).get("all", math.nan)
        if not math.isfinite(loss) or loss > 1.5 * lowest:
            return f"the held-out loss after {line['step']} steps is {loss:.4g}"
        lowest = min(lowest, loss)
    return ""


def _lines(workdir: Workdir, group: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics of one group; none before it has begun."""
    try:
        return [line for line in workdir.read_metrics() if line["group"] == group]
    except UserError:
        return []


def _measured(workdir: Workdir) -> set[int]:
    """The steps at which a run has been measured."""
    return {line["step"] for line in _lines(workdir, "eval") if _losses(line, "live")}


def _losses(line: dict[str, Any], weights: str) -> dict[str, float]:
    """Held-out loss by domain."""
    start = f"{LOSS}/{weights}/"
    return {
        name.removeprefix(start): float(value)
        for name, value in line.items()
        if name.startswith(start) and value is not None
    }
