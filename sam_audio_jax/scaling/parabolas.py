"""IsoFLOP parabolas: the other way to find the optimum, shown beside the law because it is biased.

For each budget a parabola in log N is fitted to the losses of runs of that budget; its minimum is
the optimal size, and a line through the minima in log-log space forecasts that of other budgets
(arXiv 2203.15556, section 3.2). A law's loss along a budget is no parabola and not symmetric, so
the minimum is off even without noise (arXiv 2603.22339; docs/scaling.md, "Fits").
"""

import dataclasses

import numpy as np
from jaxtyping import Float

LEAST_SIZES = 4  # of a slice: three fix a parabola, one more shows its noise


@dataclasses.dataclass(frozen=True, eq=False)
class IsoFlop:
    """The losses of runs of one budget of operations."""

    budget: float
    n: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"]


@dataclasses.dataclass(frozen=True)
class Vertex:
    """The minimum of the parabola of one budget."""

    budget: float
    n: float
    loss: float
    inside: bool  # whether the minimum lies between the sizes of the slice


def vertex(one: IsoFlop) -> Vertex | None:
    """The minimum of a slice's parabola; None where it opens downwards or has too few sizes."""
    if len(np.unique(one.n)) < LEAST_SIZES:
        return None
    x = np.log(one.n)
    centre = x.mean()
    square, line, constant = np.polyfit(x - centre, one.loss, 2)
    if square <= 0:
        return None
    best = -line / (2 * square)
    n = float(np.exp(best + centre))
    inside = bool(one.n.min() <= n <= one.n.max())
    return Vertex(one.budget, n, float(constant + line * best / 2), inside)


def line_through(vertices: list[Vertex]) -> tuple[float, float] | None:
    """(exponent, factor) of `N = factor * budget ** exponent`, by minima inside their slices."""
    usable = [one for one in vertices if one.inside]
    if len(usable) < 2:
        return None
    logs = np.log([(one.budget, one.n) for one in usable])
    exponent, constant = np.polyfit(logs[:, 0], logs[:, 1], 1)
    return float(exponent), float(np.exp(constant))


def slices(n, operations, loss, *, count: int = 6) -> list[IsoFlop]:
    """Slices of long runs: the loss of each size at the same budgets, interpolated along its run.

    `n`, `operations` and `loss` have one number for each measured loss. The budgets are spread over
    the range that at least `LEAST_SIZES` sizes cover; losses are interpolated in log-log space, and
    nothing is extrapolated. Seeds of one size are averaged.
    """
    n, operations, loss = (np.asarray(values, np.float64) for values in (n, operations, loss))
    curves = {}
    for size in np.unique(n):
        own = n == size
        budgets = np.unique(operations[own])
        means = [np.log(loss[own & (operations == budget)]).mean() for budget in budgets]
        if len(budgets) > 1:
            curves[size] = (np.log(budgets), np.array(means))
    if len(curves) < LEAST_SIZES:
        return []
    low = sorted(x[0] for x, _ in curves.values())[LEAST_SIZES - 1]
    high = sorted((x[-1] for x, _ in curves.values()), reverse=True)[LEAST_SIZES - 1]
    if high <= low:
        return []
    found = []
    for budget in np.linspace(low, high, count):
        sizes = [s for s, (x, _) in curves.items() if x[0] - 1e-9 <= budget <= x[-1] + 1e-9]
        if len(sizes) >= LEAST_SIZES:
            values = [np.exp(np.interp(budget, *curves[size])) for size in sizes]
            found.append(IsoFlop(float(np.exp(budget)), np.array(sizes), np.array(values)))
    return found
