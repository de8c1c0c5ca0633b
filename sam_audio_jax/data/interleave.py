"""Which of several lists of examples each example of a stream is from, by weights over steps.

Of every `BLOCK` examples each list has its share, in an order of that block's own. So the number of
an example in its list is known without drawing those before it, every list is read in its own
order, all of it once per round, and a list with the weight 0 changes nothing.
"""

import bisect
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sam_audio_jax.errors import UserError

BLOCK = 1_000  # examples in which every list has its share: weights are rounded to thousandths
INTERLEAVED = 7  # generators (seed, number, ...) of the package: see data/example_kinds.py


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of examples with the same weights."""

    first: int  # example
    counts: tuple[int, ...]  # of each list in a block
    before: tuple[int, ...]  # examples of each list before the stretch


class Interleave:
    """A function of the seed and the weights alone; picklable."""

    def __init__(self, weights: Sequence[tuple[int, Sequence[float]]], seed: int):
        """`weights` are (first example, weight of each list), the first of example 0.

        Raises `UserError` where all weights are 0.
        """
        self.seed = seed
        self.stretches: list[Stretch] = []
        for first, shares in weights:
            before = (0,) * len(shares)
            if self.stretches:
                before = tuple(self._before(len(self.stretches) - 1, first).tolist())
            self.stretches.append(Stretch(first, block_counts(shares), before))
        self._firsts = [stretch.first for stretch in self.stretches]

    def __call__(self, index: int) -> tuple[int, int]:
        """The list of an example, and its number there."""
        number = bisect.bisect_right(self._firsts, index) - 1
        stretch = self.stretches[number]
        block, position = divmod(index - stretch.first, BLOCK)
        which = int(_order(self.seed, number, block, stretch.counts)[position])
        return which, int(self._before(number, index)[which])

    def _before(self, number: int, index: int) -> Int[np.ndarray, " lists"]:
        """How many examples of each list come before one, of the stretch `number`."""
        stretch = self.stretches[number]
        block, position = divmod(index - stretch.first, BLOCK)
        order = _order(self.seed, number, block, stretch.counts)[:position]
        counts = np.array(stretch.counts)
        within = np.bincount(order, minlength=len(counts))
        return np.array(stretch.before) + block * counts + within


def block_counts(weights: Sequence[float]) -> tuple[int, ...]:
    """Examples of each list in a block, by largest remainder; one at least where there is weight.

    Raises `UserError` where all weights are 0.
    """
    shares = np.array(weights, np.float64)
    if not shares.sum() > 0:
        raise UserError(f"the weights of data.blend are {list(weights)}: one must be above 0")
    exact = shares / shares.sum() * BLOCK
    counts = np.maximum(np.floor(exact), shares > 0).astype(np.int64)
    rest = BLOCK - counts.sum()
    order = np.argsort(counts - exact, kind="stable")  # largest remainder first
    counts[order[: max(rest, 0)]] += 1
    while counts.sum() > BLOCK:  # many lists of nearly no weight, which have one each
        counts[np.argmax(counts)] -= 1
    return tuple(int(count) for count in counts)


@functools.lru_cache(maxsize=8)
def _order(
    seed: int, stretch: int, block: int, counts: tuple[int, ...]
) -> Int[np.ndarray, " examples"]:
    rng = np.random.default_rng((seed, INTERLEAVED, stretch, block))
    used = [number for number, count in enumerate(counts) if count]
    pattern = np.repeat(used, [counts[number] for number in used])
    return pattern if len(used) == 1 else rng.permutation(pattern)
