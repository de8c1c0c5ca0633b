"""What a fit of a scaling law reads: losses of runs with their sizes and amounts of data."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.errors import UserError

LEAST_POINTS = 8  # for five parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Measured losses. Raises `UserError` for numbers that no law can have."""

    n: Float[np.ndarray, " points"]  # parameters
    d: Float[np.ndarray, " points"]  # amount of data, in seconds or tokens
    loss: Float[np.ndarray, " points"]
    run: Int[np.ndarray, " points"]  # the run of each; points of one run vary together

    def __post_init__(self):
        for name in ("n", "d", "loss"):
            values = getattr(self, name)
            wrong = values[~(np.isfinite(values) & (values > 0))]
            if wrong.size:
                raise UserError(f"a fit needs {name} above 0 and finite, not {wrong[0]}")

    def __len__(self) -> int:
        return len(self.loss)

    def subset(self, chosen: np.ndarray) -> "Points":
        """The points that a boolean or integer array chooses."""
        return Points(self.n[chosen], self.d[chosen], self.loss[chosen], self.run[chosen])


def points(n, d, loss, run=None) -> Points:
    """Points from sequences; without `run` each is of a run of its own."""
    run = np.arange(len(loss)) if run is None else run
    n, d, loss = (np.asarray(values, np.float64) for values in (n, d, loss))
    return Points(n, d, loss, np.asarray(run, np.int64))


def check_for_fit(losses: Points) -> None:
    """Raises `UserError` for points that do not fix a law, and says what is missing."""
    sizes, amounts = len(np.unique(losses.n)), len(np.unique(losses.d))
    if len(losses) < LEAST_POINTS or sizes < 3 or amounts < 3:
        raise UserError(
            f"a fit of L(N, D) needs {LEAST_POINTS} losses or more, of 3 or more sizes and 3 or "
            f"more amounts of data; there are {len(losses)}, of {sizes} sizes and {amounts} amounts"
        )
