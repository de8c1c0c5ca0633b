"""The size and the amount of data that a budget of operations is best spent on."""

from collections.abc import Callable

import numpy as np

from sam_audio_jax.scaling.law import Law, Values

# Operations of a training, from its N; by unit of data. Interpolated between counted sizes by
# `PerUnit`, or exact for simulated laws.
Cost = Callable[[Values], Values]
CELLS = 400  # of the search over N
WIDEST = 1e4  # how far beyond the sizes of the fit the optimum is looked for, as a factor


def best_size(law: Law, budget: float, cost: Cost, around: tuple[float, float]) -> Values:
    """The N with the least loss at `budget / cost(N)` units of data, for one law or many.

    It is looked for between `WIDEST` below and above the sizes `around`; where the loss still falls
    at one end, the end is returned. Between cells of the search it is the minimum of a parabola.
    """
    grid = np.linspace(np.log(around[0] / WIDEST), np.log(around[1] * WIDEST), CELLS)
    n = np.exp(grid)
    loss = np.atleast_2d(law(n, budget / cost(n)))
    at = np.clip(loss.argmin(-1), 1, CELLS - 2)
    rows = np.arange(len(loss))
    left, here, right = (loss[rows, at + k] for k in (-1, 0, 1))
    bend = left - 2 * here + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    best = np.exp(grid[at] + np.clip(shift, -1, 1) * (grid[1] - grid[0]))
    return best if np.ndim(law.E) else best[0]


class PerUnit:
    """Operations for a unit of data as a function of N: log-linear between counted sizes.

    Beyond them it goes on with the slope of the last two.
    """

    def __init__(self, n: np.ndarray, operations: np.ndarray):
        order = np.argsort(n)
        self.log_n = np.log(np.asarray(n, np.float64)[order])
        self.log_cost = np.log(np.asarray(operations, np.float64)[order])

    def __call__(self, n: Values) -> Values:
        x = np.log(n)
        inside = np.interp(x, self.log_n, self.log_cost)
        for end, beyond in ((0, x < self.log_n[0]), (-1, x > self.log_n[-1])):
            near = (0, 1) if end == 0 else (-2, -1)
            slope = np.diff(self.log_cost[list(near)]) / np.diff(self.log_n[list(near)])
            line = self.log_cost[end] + slope[0] * (x - self.log_n[end])
            inside = np.where(beyond, line, inside)
        return np.exp(inside)
