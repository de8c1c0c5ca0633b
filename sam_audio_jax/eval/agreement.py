"""How a judge's scores agree with ratings: correlations with bootstrap intervals.

Pearson's (PCC) and Spearman's (SRCC), of single items (level "utterance") and of the means of
systems (level "system"), for every axis and domain (docs/scoring.md, "Training a judge").
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.stats
from jaxtyping import Float

from sam_audio_jax.eval.statistics import ALL, LEVEL, RESAMPLES

_Level = Literal["utterance", "system"]
FEWEST = 3  # rows of a correlation
Rows = Float[np.ndarray, "*sets rows"]
Measure = Callable[[Rows, Rows], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Correlation:
    """One correlation over `n` items or systems and its percentile interval."""

    axis: str
    domain: str  # or "all"
    level: _Level
    kind: str  # pcc or srcc
    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, str | float | int]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


def pcc(x: Rows, y: Rows) -> np.ndarray:
    """Pearson's correlation along the last axis; NaN where either side is constant."""
    x, y = (side - side.mean(axis=-1, keepdims=True) for side in (x, y))
    power = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 0, (x * y).sum(axis=-1) / power, np.nan)


def srcc(x: Rows, y: Rows) -> np.ndarray:
    """Spearman's: Pearson's of the ranks, where equal values share their mean rank."""
    return pcc(*(scipy.stats.rankdata(side, axis=-1) for side in (x, y)))


MEASURES: Mapping[str, Measure] = {"pcc": pcc, "srcc": srcc}


def agreement(
    scores: Float[np.ndarray, "items axes"],
    ratings: Float[np.ndarray, "items axes"],
    axes: Sequence[str],
    domains: Sequence[str],
    systems: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Correlation]:
    """Correlations of all axes, domains and levels that have enough rows and are not constant.

    `ratings` are NaN where there are none. The level "system" has one row for each system, the
    means of its rated items; it is left out where fewer than three systems are named.
    """
    rows: list[Correlation] = []
    names = np.array(systems)
    for column, axis in enumerate(axes):
        rated = ~np.isnan(ratings[:, column])
        for domain in [ALL, *sorted(set(domains) - {"", ALL})]:
            chosen = rated & np.array([domain in (ALL, one) for one in domains])
            x, y = (side[chosen, column].astype(np.float64) for side in (scores, ratings))
            named = [name for name in sorted(set(names[chosen])) if name]
            of_system = [
                (x[names[chosen] == name].mean(), y[names[chosen] == name].mean()) for name in named
            ]
            levels: list[tuple[_Level, np.ndarray, np.ndarray]] = [("utterance", x, y)]
            if of_system:
                xs, ys = np.array(of_system).T
                levels.append(("system", xs, ys))
            for level, left, right in levels:
                for kind in MEASURES:
                    found = correlate(kind, left, right, seed=seed, resamples=resamples)
                    if found is not None:
                        rows.append(Correlation(axis, domain, level, kind, *found, len(left)))
    return rows


def correlate(
    kind: str,
    x: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float, float] | None:
    """Value, lower and upper end of the interval; None for too few or constant rows.

    Rows are resampled in pairs; resamples that are constant are left out.
    """
    measure = MEASURES[kind]
    value = float(measure(x, y)) if len(x) >= FEWEST else math.nan
    if math.isnan(value):
        return None
    chosen = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    values = measure(x[chosen], y[chosen])
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(values, [outside, 1 - outside])
    return value, float(low), float(high)
