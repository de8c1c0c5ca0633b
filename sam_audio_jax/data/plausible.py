"""Which sounds go together: a table of pairs from which a residual for a target is drawn.

Mixtures of sounds that occur together teach more than any two (Hive, arXiv 2601.22599). A line of
the table is `{"target": "dog barking", "residual": "rain", "weight": 2}`: whatever has all words of
`target` may be mixed with whatever has all words of `residual`, and the other way round.
"""

import functools
import math

import numpy as np

from sam_audio_jax.data.likeness import implied
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import read_lines


class PlausiblePairs:
    """The rows of one table."""

    def __init__(self, path: str):
        """Raises `UserError`, with file and line, for a row that is none."""
        self.path = path
        self.rows: list[tuple[str, str, float]] = []
        for number, line in read_lines(path):
            where = f"{path} line {number}"
            if not isinstance(line, dict):
                raise UserError(f"{where} must be an object, not {shown(line)}")
            one, other, weight = line.get("target"), line.get("residual"), line.get("weight", 1)
            if not isinstance(one, str) or not isinstance(other, str) or not one or not other:
                raise UserError(f"{where} needs the phrases target and residual")
            if not isinstance(weight, int | float) or not 0 < weight < math.inf:
                raise UserError(f"{where}: weight {shown(weight)} must be above 0")
            self.rows += [(one, other, float(weight)), (other, one, float(weight))]

    def draw(self, caption: str, rng: np.random.Generator) -> str | None:
        """A phrase for the residual of a target, by the weights of the rows; None without a row."""
        rows = [(other, weight) for one, other, weight in self.rows if implied(one, caption)]
        if not rows:
            return None
        bounds = np.cumsum([weight for _, weight in rows])
        which = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        return rows[min(which, len(rows) - 1)][0]


@functools.lru_cache(maxsize=8)
def plausible_pairs(path: str) -> PlausiblePairs:
    """The table of a file, which is read once."""
    return PlausiblePairs(path)
