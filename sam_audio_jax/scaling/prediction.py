"""Tests of a law: what it predicts of runs that are left out of its fit."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_audio_jax.errors import UserError
from sam_audio_jax.scaling.intervals import Uncertainty, uncertainty
from sam_audio_jax.scaling.law import Fit, fit
from sam_audio_jax.scaling.measured import MeasuredLoss
from sam_audio_jax.scaling.points import Points, points

Results = dict[str, Any]
# Of operations: runs of one budget differ by less, as each makes whole steps.
SAME_BUDGET = 0.02


def points_of(rows: Sequence[MeasuredLoss], values: Sequence[float]) -> Points:
    """The points of a fit: one value of each row."""
    names = {name: number for number, name in enumerate(dict.fromkeys(row.run for row in rows))}
    return points(
        [row.parameters for row in rows],
        [row.seconds for row in rows],
        values,
        [names[row.run] for row in rows],
    )


def held_out(rows: Sequence[MeasuredLoss], values: Sequence[float]) -> Results:
    """The test of the law: the largest run is left out of a fit, which then predicts its loss.

    The error is a share of the spread between the largest and the smallest loss, as most of a loss
    is irreducible; the naive guess is the loss of the second largest run. Every run of the largest
    run's size is left out. Most of that spread may be between amounts of data, so that
    `equal_data` has the same test at each amount, by the spread between sizes there.
    """
    at = _largest(rows, range(len(rows)))
    largest, truth = rows[at], values[at]
    kept = [number for number, row in enumerate(rows) if row.width != largest.width]
    try:
        fitted = fit(points_of([rows[k] for k in kept], [values[k] for k in kept]))
    except UserError as error:
        return {"missing": str(error)}
    sure = uncertainty(fitted)
    interval = sure.of_new_run(fitted.law, largest.parameters, largest.seconds)
    second = _largest(rows, kept)
    spread = max(values) - min(values)
    return {
        "run": largest.run,
        "step": largest.step,
        "loss": truth,
        "predicted": interval.as_dict(),
        "inside": truth in interval,
        "error_of_spread": abs(interval.value - truth) / spread,
        "naive_run": rows[second].run,
        "naive_error_of_spread": abs(values[second] - truth) / spread,
        "extrapolated": Reach([rows[k] for k in kept]).words(
            largest.parameters, largest.seconds, largest.operations
        ),
        "equal_data": _at_equal_data(rows, values, largest, fitted, sure),
    }


def _largest(rows: Sequence[MeasuredLoss], numbers: Sequence[int]) -> int:
    """The row with the most operations; of those of one budget that of the largest size."""
    most = max(rows[number].operations for number in numbers)
    alike = [k for k in numbers if rows[k].operations >= (1 - SAME_BUDGET) * most]
    return max(alike, key=lambda k: (rows[k].parameters, rows[k].operations))


def _at_equal_data(
    rows: Sequence[MeasuredLoss],
    values: Sequence[float],
    largest: MeasuredLoss,
    fitted: Fit,
    sure: Uncertainty,
) -> list[Results]:
    """The losses of the largest size by a fit without it, at each amount of data.

    Shares are of the spread between the sizes' means there; the naive guess is the mean of the
    second largest size. Amounts of fewer than three sizes are left out.
    """
    found = []
    for seconds in sorted({row.seconds for row in rows if row.width == largest.width}):
        of: dict[int, list[float]] = {}
        for row, value in zip(rows, values, strict=True):
            if row.seconds == seconds:
                of.setdefault(row.parameters, []).append(value)
        means = {n: float(np.mean(of[n])) for n in sorted(of)}
        if len(means) < 3:
            continue
        truth = means[largest.parameters]
        second = means[max(n for n in means if n != largest.parameters)]
        spread = max(means.values()) - min(means.values())
        interval = sure.of_new_run(fitted.law, largest.parameters, seconds)
        found.append(
            {
                "hours": seconds / 3600,
                "loss": truth,
                "predicted": interval.as_dict(),
                "inside": truth in interval,
                "error_of_spread": abs(interval.value - truth) / spread,
                "naive_error_of_spread": abs(second - truth) / spread,
            }
        )
    return found


def without_least_data(
    rows: Sequence[MeasuredLoss], values: Sequence[float], whole: Results
) -> Results:
    """The law without the smallest amount of data: where it moves, the form does not hold there.

    `moved` names the parameters that leave their intervals in `whole`, the fit of all amounts.
    """
    least = min(row.seconds for row in rows)
    kept = [number for number, row in enumerate(rows) if row.seconds > least]
    some, losses = [rows[k] for k in kept], [values[k] for k in kept]
    try:
        law = fit(points_of(some, losses)).law.as_dict()
    except UserError as error:
        return {"missing": str(error)}
    moved = [
        name
        for name in ("E", "alpha", "beta")
        if not whole[name]["low"] <= law[name] <= whole[name]["high"]
    ]
    return {
        "hours": least / 3600,
        "law": law,
        "moved": moved,
        "held_out": held_out(some, losses),
    }


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far beyond the runs of a fit something lies."""

    rows: Sequence[MeasuredLoss]

    def words(self, n: float | int, seconds: float, spent: float | int) -> str:
        """`extrapolated 12 times in N, ...`, of what lies beyond the largest run."""
        of = {
            "N": n / max(row.parameters for row in self.rows),
            "D": seconds / max(row.seconds for row in self.rows),
            "C": spent / max(row.operations for row in self.rows),
        }
        beyond = [f"{ratio:.3g} times in {name}" for name, ratio in of.items() if ratio > 1.005]
        return f"extrapolated {', '.join(beyond)}" if beyond else "within the runs of the fit"
