"""Confidence intervals of means over few items: percentile bootstrap with a fixed seed.

The method and its numbers are our choice.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95  # share of resampled means inside the interval
ALL = "all"  # the setting that stands for every item
MEDIAN = "_median"  # ends the name of a column of medians


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over `n` items and its bootstrap percentile interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


def interval_text(interval: Interval | None, form: str = "{:.2f}", unit: float = 1.0) -> str:
    """`MEAN (LOW to HIGH)`, each times `unit` and in this form; `-` where nothing was measured.

    The value of one item alone has no interval.
    """
    if interval is None:
        return "-"
    numbers = (interval.mean, interval.low, interval.high)
    mean, low, high = (form.format(unit * number) for number in numbers)
    return f"{mean} ({low} to {high})" if interval.n > 1 else mean


def counted(count: int, noun: str) -> str:
    """`1 item`, `2 items`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bootstrap(
    values: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    statistic: Callable[..., Any] = np.mean,
) -> Interval | None:
    """Interval of the mean, or another statistic, of the finite values; None when there are none.

    The same values and seed give the same interval. One value gives `low` and `high` equal to it,
    which says nothing: where `n` is 1, no interval is shown.
    """
    finite = np.asarray([v for v in values if math.isfinite(v)], np.float64)
    if not finite.size:
        return None
    rng = np.random.default_rng(seed)
    means = statistic(finite[rng.integers(0, finite.size, (resamples, finite.size))], axis=1)
    outside = (1 - level) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return Interval(float(statistic(finite)), float(low), float(high), int(finite.size))


def net_win_rate(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """`(wins - losses) / pairs` of two systems' scores of the same items, in -1..1.

    Ties are pairs, too. Items, not scores, are resampled, so that the interval is of the paired
    comparison. Pairs with a NaN are left out; None when there are no others.
    """
    a, b = (np.asarray(scores, np.float64) for scores in (ours, theirs))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"scores must be two lists of one length, not {a.shape} and {b.shape}")
    signs = np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) * 1.0 - (a < b))
    return bootstrap(signs.tolist(), seed=seed, resamples=resamples)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the report's tables: a column of a row for one setting."""

    row: str  # "model/none/text", or a baseline's name
    setting: str  # sfx, speech, ..., or "all"
    column: str
    interval: Interval


def aggregate(
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    seed: int = 0,
    parts: Mapping[str, str] | None = None,
) -> list[Cell]:
    """Means of `columns` over items that share `row`, per `setting` and over all of them.

    Items are mappings with `id`, `row`, `setting` and the columns (numbers or booleans; an item may
    lack some). `parts` names, by id, a part of the setting that has cells of its own. A column
    `NAME_median` is the median of `NAME`. Cells are in the order of first appearance, "all" last;
    empty cells are left out.
    """
    rows = dict.fromkeys(item["row"] for item in items)
    part_of = {item["id"]: parts.get(item["id"], "") for item in items} if parts else {}
    settings = [*dict.fromkeys(item["setting"] for item in items)]
    settings += [*filter(None, dict.fromkeys(part_of.values())), ALL]
    cells = []
    for row in rows:
        of_row = [item for item in items if item["row"] == row]
        for setting in settings:
            chosen = [
                item
                for item in of_row
                if setting in (ALL, item["setting"], part_of and part_of[item["id"]])
            ]
            for column in columns:
                name = column.removesuffix(MEDIAN)
                values = [float(item[name]) for item in chosen if name in item]
                statistic = np.mean if name == column else np.median
                interval = bootstrap(values, seed=seed, statistic=statistic)
                if interval:
                    cells.append(Cell(row, setting, column, interval))
    return cells
