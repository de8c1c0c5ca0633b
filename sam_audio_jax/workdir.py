"""The folder of one training run: the names of its files, their version, and the run it belongs to.

    config.json        {"format": 2, "experiment": class name, "config": fields}
    checkpoints/STEP/  one checkpoint (Orbax), with the items params, ema and rest
    unreadable/        damaged checkpoints, set aside
    scores.json        {step: score of its evaluation, "metric": its name, "evaluated_by": fields of
                       the config}, by which the best checkpoints are kept; before 0.2.0 the scores
    parameters.txt     the table of parameters, their sizes and shardings at the newest start
    metrics.jsonl      one line of numbers at a time; events/ holds the same for TensorBoard
    eval/STEP/         the report of one evaluation; eval/STEP.partial/ while it is not finished
    codec/             of a separator: the frozen codec that it is trained with
    judge/             of a judge: its averaged weights at the newest evaluation
    audio_tower/       of an audio tower: the same; of a separator with prompts by example: the
                       frozen tower that it is trained with
    latents.json       of a codec: mean and standard deviation of its latents
    profile/           traces of a few steps

A `format` above `FORMAT` is refused; a config.json without one has format 1, whose data section is
flat and is converted to today's parts when it is read (`saved_config.py`). Other rooms write these
files, but take their paths from here.

Each checkpoint also holds the content of config.json: what the run is follows from the newest one,
and config.json is written anew where it is damaged or missing.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from sam_audio_jax import distributed
from sam_audio_jax.bounds import fits
from sam_audio_jax.config import differences, to_dict
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import (
    check_format,
    check_writable,
    is_part,
    read_jsonl,
    read_object,
    remove_parts,
    write_json,
)
from sam_audio_jax.saved_config import migrated_run
from sam_audio_jax.saved_scores import SavedScores, differing_fields, evaluated_by

FORMAT = 2
METADATA = "_CHECKPOINT_METADATA"  # of Orbax, in each checkpoint
# Experiment -> a field that its configs alone have; before 0.2.0 checkpoints did not name it.
EXPERIMENT_FIELDS = {"TrainConfig": "separator", "CodecTrainConfig": "discriminator"}


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The paths in one run's folder, and what is known about its checkpoints."""

    path: pathlib.Path

    @classmethod
    def open(cls, path: pathlib.Path, config: Any) -> "Workdir":
        """Claims the folder for the run of `config`, a dataclass, which is written into it.

        Before its first checkpoint a workdir takes any config; afterwards only fields that may
        change between two starts of a run may differ. Process 0 reads and writes, for all.
        Raises `UserError` with the differing fields, or for a folder that holds something else.
        """
        workdir = cls(pathlib.Path(path))
        distributed.run_on_first(lambda: workdir._claim(config))
        return workdir

    @property
    def config_file(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def unreadable(self) -> pathlib.Path:
        return self.path / "unreadable"

    @property
    def scores_file(self) -> pathlib.Path:
        return self.path / "scores.json"

    @property
    def metrics_file(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def parameters_file(self) -> pathlib.Path:
        return self.path / "parameters.txt"

    @property
    def events(self) -> pathlib.Path:
        return self.path / "events"

    @property
    def codec(self) -> pathlib.Path:
        return self.path / "codec"

    @property
    def judge(self) -> pathlib.Path:
        return self.path / "judge"

    @property
    def audio_tower(self) -> pathlib.Path:
        return self.path / "audio_tower"

    @property
    def latents_file(self) -> pathlib.Path:
        return self.path / "latents.json"

    @property
    def profile(self) -> pathlib.Path:
        return self.path / "profile"

    def evaluation(self, step: int) -> pathlib.Path:
        """The folder of the report on one step."""
        return self.path / "eval" / str(step)

    def checkpoint(self, step: int) -> pathlib.Path:
        """The folder of one checkpoint."""
        return self.checkpoints / str(step)

    def read_config(self) -> dict[str, Any]:
        """`{"experiment": class name, "config": fields}` of the run, in the format of today.

        Where config.json is damaged or missing, that of the newest checkpoint. Raises `UserError`
        when the folder is no workdir or its format is newer than this code.
        """
        run, damage = self._config_in_file()
        run = run or self.config_in_checkpoint()
        if run is None:
            raise UserError(damage)
        return run

    def _config_in_file(self) -> tuple[dict[str, Any] | None, str]:
        """The content of config.json, or None and what is wrong with it.

        Raises `UserError` for a format that is newer than this code.
        """
        try:
            saved = read_object(self.config_file)
        except UserError as error:
            return None, f"{self.path} is not the workdir of a run: {error}"
        if not _is_run(saved):
            return None, (
                f"{self.config_file} is damaged: it must hold the experiment and the config of the "
                "run; put a copy there, or take another --workdir"
            )
        check_format(self.config_file, saved, FORMAT)
        return migrated_run(saved), ""

    def config_in_checkpoint(self) -> dict[str, Any] | None:
        """What the newest checkpoint that can be read says about its run; None if none does.

        Raises `UserError` for a format that is newer than this code.
        """
        for saved in self._metadata():
            fields = saved.get("config")
            for experiment, field in EXPERIMENT_FIELDS.items():
                if isinstance(fields, dict) and field in fields:
                    saved = {"experiment": experiment} | saved
            if _is_run(saved):
                check_format(self.checkpoints, saved, FORMAT)
                return migrated_run({name: saved[name] for name in ("experiment", "config")})
        return None

    def kept_in_checkpoint(self, name: str) -> Any:
        """What a training has kept under a name in the newest checkpoint that has it; None: none.

        See `train_and_evaluate`.
        """
        for saved in self._metadata():
            kept = saved.get("kept")
            if isinstance(kept, dict) and name in kept:
                return kept[name]
        return None

    def _metadata(self) -> Iterator[dict[str, Any]]:
        """What `Checkpoints.save` was handed with each checkpoint, the newest first."""
        for step in reversed(self.steps()):
            if (saved := self._metadata_of(step)) is not None:
                yield saved

    def _metadata_of(self, step: int) -> dict[str, Any] | None:
        """The same of one step; None where it cannot be read."""
        with contextlib.suppress(UserError):
            saved = read_object(self.checkpoint(step) / METADATA).get("custom_metadata")
            if isinstance(saved, dict):
                return saved
        return None

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, in order."""
        return sorted(
            int(folder.name)
            for folder in self.checkpoints.glob("[0-9]*")
            if folder.name.isdigit() and (folder / METADATA).is_file()
        )

    def scores_of(self, metric: str, *, read_file: bool = True) -> dict[int, float]:
        """The score of each evaluated step by a metric, as the run's config measures it now.

        Those in metrics.jsonl where scores.json is missing or is of another metric: decibels must
        not be ranked with losses, nor scores of one bench with those of another. Where scores.json
        does not say how a score was measured, as before 0.2.0, the checkpoint of its step does.
        Without a metric, those of scores.json. Raises `UserError` for a damaged scores.json, which
        is not looked at without `read_file`.
        """
        scores, _ = self._scores_of(metric, read_file=read_file)
        return scores

    def scores_left_out(self, metric: str, *, read_file: bool = True) -> str:
        """Which saved steps have scores that were measured otherwise, in words; empty: none."""
        _, left_out = self._scores_of(metric, read_file=read_file)
        if not (steps := [str(step) for step in self.steps() if step in left_out]):
            return ""
        fields = sorted({name for step in steps for name in left_out[int(step)]})
        return f"{'step' if len(steps) == 1 else 'steps'} {', '.join(steps)} ({', '.join(fields)})"

    def _scores_of(
        self, metric: str, *, read_file: bool
    ) -> tuple[dict[int, float], dict[int, list[str]]]:
        """The scores, and of each step that is left out the fields that were others."""
        saved = self.read_scores() if read_file else SavedScores()
        if not metric:
            return saved.values, {}
        scores = saved.values
        if saved.metric != metric:
            scores = self.scores_in_metrics(metric)
            if saved.metric and saved.evaluated_by:  # which is that of the steps in the file
                scores = {step: scores[step] for step in saved.values if step in scores}
        now, left_out = self._evaluated_by(metric), {}
        for step in [*scores, *(step for step in saved.values if step not in scores)]:
            config = {} if saved.evaluated_by else self._config_of(step)
            if not saved.metric and step in saved.values:
                own = (config.get("checkpoint") or {}).get("best_metric")
                if own in (None, metric):
                    scores = scores | {step: saved.values[step]}
            then = saved.evaluated_by or evaluated_by(config, metric)
            if step in scores and (differing := differing_fields(then, now)):
                left_out[step] = differing
        return {step: one for step, one in scores.items() if step not in left_out}, left_out

    def _evaluated_by(self, metric: str) -> dict[str, Any]:
        """How the evaluations of the run measure a metric now; {} where no config says it."""
        try:
            return evaluated_by(self.read_config()["config"], metric)
        except UserError:
            return {}

    def _config_of(self, step: int) -> dict[str, Any]:
        """The config with which the checkpoint of a step was saved; {} where none says it."""
        config = (self._metadata_of(step) or {}).get("config")
        return config if isinstance(config, dict) else {}

    def read_scores(self) -> SavedScores:
        """What scores.json holds; nothing without the file.

        Raises `UserError` for a file that holds anything else.
        """
        return SavedScores.read(self.scores_file)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without those that are damaged; empty without a file.

        Each line that is returned has a `step`, a `group` and numbers.
        """
        lines = read_jsonl(self.metrics_file, skip_torn=True)
        return [line for line in lines if isinstance(line, dict) and _is_metrics(line)]

    def scores_in_metrics(self, name: str) -> dict[int, float]:
        """The number `name` of each evaluation in metrics.jsonl, by step; empty without a name.

        Those that are not finite are left out: none of them is the best.
        """
        lines = [line for line in self.read_metrics() if line["group"] == "eval"]
        found = {line["step"]: float(line[name]) for line in lines if line.get(name) is not None}
        return {step: value for step, value in found.items() if math.isfinite(value)}

    def write_scores(self, metric: str, scores: dict[int, float]) -> None:
        """Replaces scores.json; the scores are measured as the run's config says now."""
        by = self._evaluated_by("")  # all of it, for other metrics of the same evaluations
        write_json(
            self.scores_file, {**scores, "metric": metric, **({"evaluated_by": by} if by else {})}
        )

    def best_step(self) -> int:
        """The saved step whose evaluation scored best, by `checkpoint.best_metric` of the run.

        Raises `UserError` when no saved step has a score.
        """
        checkpoint = self.read_config()["config"]["checkpoint"]
        metric = checkpoint.get("best_metric", "")
        scores = self.scores_of(metric)
        steps = [step for step in self.steps() if step in scores]
        if not steps and (others := self.scores_left_out(metric)):
            raise UserError(
                f"{self.path} has no scored checkpoint: {others} was measured otherwise"
            )
        if not steps:
            raise UserError(f"{self.path} has no scored checkpoint: set checkpoint.best_metric")
        return (max if checkpoint["best_is"] == "highest" else min)(steps, key=scores.__getitem__)

    def _check(self, config: Any) -> list[str]:
        """Raises `UserError` unless the folder may be that of the run; returns warnings."""
        steps = self.steps()
        if not steps:
            if self.config_file.is_file():
                self.read_config()
            elif self.path.exists() and not (self.path.is_dir() and self._is_empty()):
                raise UserError(f"{self.path} is not empty and holds no config.json of a run")
            return []
        in_file, _ = self._config_in_file()
        saved = self.config_in_checkpoint() or in_file
        if saved is None:
            return [
                f"warning: neither {self.config_file} nor a checkpoint says what this run is: the "
                "config is taken, if the checkpoint has its sizes"
            ]
        kind = type(config).__name__
        if saved["experiment"] != kind:
            raise UserError(f"{self.path} belongs to a {saved['experiment']}, not to a {kind}")
        differing = differences(saved["config"], config)
        if differing:
            raise UserError(
                f"{self.path} belongs to another config ({'; '.join(differing)}); "
                "take another --workdir or the saved values"
            )
        if in_file is None:
            was = "was damaged" if os.path.lexists(self.config_file) else "was missing"
            return [f"warning: {self.config_file} {was}: checkpoint {steps[-1]} has its content"]
        if not _is_alike(in_file, config):
            return [f"warning: {self.config_file} was of another run than the checkpoints"]
        return []

    def _set_aside_odd(self) -> list[str]:
        """Moves what is no file where one should be, or no folder; returns warnings."""
        files = (
            self.config_file,
            self.scores_file,
            self.metrics_file,
            self.parameters_file,
            self.latents_file,
        )
        warnings = []
        for path in (*files, self.events, self.path / "eval"):
            is_right = path.is_file() if path in files else path.is_dir()
            if is_right or not os.path.lexists(path):
                continue
            self.unreadable.mkdir(exist_ok=True)
            number = sum(1 for _ in self.unreadable.glob(f"{path.name}*"))
            path.rename(self.unreadable / f"{path.name}.{number}")
            kind = "file" if path in files else "folder"
            warnings.append(f"warning: {path} was no {kind}: it is in {self.unreadable} now")
        return warnings

    def _is_empty(self) -> bool:
        """Whether nothing is in the folder but what a killed writer left."""
        return all(is_part(entry.name) for entry in self.path.iterdir())

    def _claim(self, config: Any) -> None:
        warnings = self._check(config)
        check_writable(self.path, "--workdir")
        warnings += self._set_aside_odd()
        for folder in (self.path, self.path / "eval"):
            remove_parts(folder)
        write_json(self.config_file, run_of(config))
        for line in warnings:
            print(line, file=sys.stderr)


def run_of(config: Any) -> dict[str, Any]:
    """What config.json and each checkpoint say about the run of a config."""
    return {"format": FORMAT, "experiment": type(config).__name__, "config": to_dict(config)}


def _is_run(saved: dict[str, Any]) -> bool:
    return isinstance(saved.get("experiment"), str) and isinstance(saved.get("config"), dict)


def _is_alike(run: dict[str, Any], config: Any) -> bool:
    """Whether what was saved is the run of a config."""
    try:
        return run["experiment"] == type(config).__name__ and not differences(run["config"], config)
    except UserError:  # a field that there is not
        return False


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint of a run."""

    workdir: Workdir
    step: int
    run: dict[str, Any]  # as `Workdir.read_config` returns it

    @property
    def folder(self) -> pathlib.Path:
        return self.workdir.checkpoint(self.step)

    def fields(self, needed: str) -> dict[str, Any]:
        """The config of the run. Raises `UserError` when it does not have the field `needed`."""
        if needed not in self.run["config"]:
            raise UserError(
                f"{self.workdir.path} is the workdir of a {self.run['experiment']}, "
                f"which has no {needed}"
            )
        return self.run["config"]


def _is_metrics(line: dict[str, Any]) -> bool:
    values = [value for key, value in line.items() if key != "group"]
    numbers = all(isinstance(value, int | float | None) for value in values)
    return numbers and isinstance(line.get("group"), str) and fits(int, line.get("step"))


def find_checkpoint(name: str) -> Checkpoint | None:
    """The checkpoint that a path means; None when the path is not of a run.

    `name` is WORKDIR (its newest step), WORKDIR/best or WORKDIR/checkpoints/STEP. Raises
    `UserError` when the run has no such checkpoint.
    """
    path = pathlib.Path(name)
    named_step = path.name.isdigit() and path.parent.name == "checkpoints"
    best = path.name == "best" and not path.exists()
    workdir = Workdir(path.parent.parent if named_step else path.parent if best else path)
    steps = workdir.steps()
    if named_step and int(path.name) not in steps:
        raise UserError(f"no checkpoint {path}; saved are {steps}")
    if workdir.config_in_checkpoint() is None and (
        not workdir.config_file.is_file() or "experiment" not in _run_of(workdir)
    ):
        return None
    if not steps:
        raise UserError(f"{workdir.path} has no checkpoint yet")
    step = int(path.name) if named_step else workdir.best_step() if best else steps[-1]
    return Checkpoint(workdir, step, workdir.read_config())


def _run_of(workdir: Workdir) -> dict[str, Any]:
    """The config.json of a folder that may be a run's or a model's."""
    return read_object(workdir.config_file)
