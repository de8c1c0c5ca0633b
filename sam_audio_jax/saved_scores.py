"""The scores of a run's evaluations, and what says whether two of them are of one kind."""

import dataclasses
import pathlib
from typing import Any

from sam_audio_jax.bounds import fits
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import read_object

# Fields that a run may change between two starts, and that say what its evaluations measure.
EVALUATED_BY = ("eval_bench", "eval_limit", "sampler", "data.valid_cache")
LOSSES = "flow_loss/"  # begins the names of metrics that no sampler matters to


@dataclasses.dataclass(frozen=True)
class SavedScores:
    """What scores.json holds: a score of each evaluated step, by which metric, and measured how."""

    values: dict[int, float] = dataclasses.field(default_factory=dict)
    metric: str = ""  # empty: the file is of 0.1.0
    evaluated_by: dict[str, Any] = dataclasses.field(default_factory=dict)  # empty: it is not said

    @classmethod
    def read(cls, file: pathlib.Path) -> "SavedScores":
        """What the file holds; nothing where there is none.

        Raises `UserError` for a file that holds anything else.
        """
        if not file.is_file():
            return cls()
        scores = read_object(file)
        metric, by = scores.pop("metric", ""), scores.pop("evaluated_by", {})
        if not isinstance(metric, str):
            raise UserError(f"{file} names no metric, but {shown(metric)}")
        if not isinstance(by, dict):
            raise UserError(f"{file}: evaluated_by has no fields, but {shown(by)}")
        wrong = [step for step in scores if not (step.isdigit() and fits(float, scores[step]))]
        if wrong:
            raise UserError(f"{file} has no number for step {shown(wrong[0])}")
        return cls({int(step): score for step, score in scores.items()}, metric, by)


def evaluated_by(config: dict[str, Any], metric: str) -> dict[str, Any]:
    """The fields of a config that decide what evaluations measure by a metric, by their names.

    None where it has no bench: it leaves the evaluations to another start of the run.
    """
    found: dict[str, Any] = {}
    if config.get("eval_bench") == "":
        return found
    for name in EVALUATED_BY:
        value: Any = config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in (None, "") and not (name == "sampler" and metric.startswith(LOSSES)):
            found[name] = value
    return found


def differing_fields(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The fields in which two differ that both have: others are newer than one of them."""
    return [name for name in then.keys() & now.keys() if not _agree(then[name], now[name])]


def _agree(then: Any, now: Any) -> bool:
    if isinstance(then, dict) and isinstance(now, dict):
        return not differing_fields(then, now)
    return then == now
