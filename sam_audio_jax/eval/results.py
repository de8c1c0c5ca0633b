"""What an evaluation makes of its scores: the content of `results.json`, and the items to play.

Scores of items become means with intervals (docs/scoring.md, "Bench"), of which some are logged.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from sam_audio_jax.eval import scoring, statistics
from sam_audio_jax.eval.suite import Suite

ABSENT_MEDIAN = scoring.ABSENT_LEVEL + statistics.MEDIAN
LOGGED = ("sisdri", "sisdri_residual", "logmel", "logmel_residual", *scoring.FOLLOWING)
LOGGED += (scoring.REWORDED, ABSENT_MEDIAN)
# What decides which items are the best and the worst: the first of these that is measured.
RANKED_BY = ("sisdri", "judge_overall", "clap", "imagebind", "aesthetics_PQ")


@dataclasses.dataclass(frozen=True)
class RankedRow:
    """A row of scores in the order of listening."""

    row: scoring.ScoreRow
    column: str = ""  # that decides; "" if none of `RANKED_BY` is measured
    place: str = ""  # median, worst, best; "" for the others


def ranked(rows: Sequence[scoring.ScoreRow]) -> list[RankedRow]:
    """The rows by the first column of `RANKED_BY` that any of them has.

    The median comes first, then the worst, the best and the others from the worst on. Without such
    a column rows keep their order.
    """
    for column in RANKED_BY:
        known = [row for row in rows if math.isfinite(row.get(column, math.nan))]
        if known:
            known.sort(key=lambda row: row[column])
            last = len(known) - 1
            places = {len(known) // 2: "median", 0: "worst", last: "best"} if last else {}
            order = dict.fromkeys([*places, *range(len(known))])
            return [RankedRow(known[index], column, places.get(index, "")) for index in order]
    return [RankedRow(row) for row in rows]


def results_of(
    suite: Suite,
    scores: scoring.Scores,
    rows: list[scoring.ScoreRow],
    more: Sequence[str],
    seed: int,
) -> tuple[dict[str, Any], list[statistics.Cell]]:
    """What `results.json` has of the scores, and the cells of its tables with their intervals.

    `more` are the columns besides those of known stems.
    """
    following, reworded = scores.following(), scores.reworded()
    tables = (
        (rows, (*scoring.COLUMNS, scoring.ABSENT_LEVEL, ABSENT_MEDIAN, *more)),
        (following, (*scoring.FOLLOWING, *scoring.LEVELS)),
        (reworded, (scoring.REWORDED,)),
    )
    cells = []
    for lines, columns in tables:
        cells += statistics.aggregate(lines, columns, seed=seed, parts=suite.parts)
    described = {(one["setting"], one["id"]): one for one in scores.described}
    results = {
        "mixtures": dict(suite.listed),
        "parts": dict(collections.Counter(suite.parts.values())),
        "not_told_apart_by_spans": list(suite.alike),
        "not_finite": scores.not_finite,
        "silent": [
            {name: row[name] for name in ("setting", "id", "row")} | {"stem": stem}
            for row in rows
            for stem, column in scoring.SILENT.items()
            if row.get(column)
        ],
        "missing": [dataclasses.asdict(one) for one in (*suite.missing, *scores.failed)],
        "not_run": dict(suite.not_run),
        "published": suite.published,
        "remarks": list(suite.remarks),
        "columns": list(more),
        "table": [_table_line(cell) for cell in cells],
        "items": rows,
        "following": following,
        "reworded": reworded,
        "described": list(described.values()),
    }
    return results, cells


def scalars(cells: Iterable[statistics.Cell], more: Sequence[str] = ()) -> dict[str, float]:
    """`COLUMN/REFINE/SETTING/PROMPT` of the model, `COLUMN/BASELINE/SETTING` of the baselines.

    The columns are those of `LOGGED` and `more`.
    """
    flat = {}
    for cell in cells:
        if cell.column not in LOGGED and cell.column not in more:
            continue
        parts = cell.row.split("/")
        if parts[0] == "model":
            key = f"{cell.column}/{parts[1]}/{cell.setting}/{parts[2]}"
        else:
            key = f"{cell.column}/{cell.row}/{cell.setting}"
        flat[key] = cell.interval.mean
    return flat


def _table_line(cell: statistics.Cell) -> dict[str, Any]:
    """A cell of the report's tables as JSON."""
    name = {"row": cell.row, "setting": cell.setting, "column": cell.column}
    return name | cell.interval.as_dict()
