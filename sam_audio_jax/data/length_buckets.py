"""Batches of varying length under a budget of frames.

All items of a step are padded to one length out of a short list, and there are as many as the
budget holds: a step costs about the same whatever its length, and a run compiles one program per
length. Every process computes the bucket of a step from seed and step alone; if it depended on the
items that a process has ready, the collectives of a pod would hang.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int

from sam_audio_jax.data.config import BatchConfig
from sam_audio_jax.errors import UserError

ROUND = 1_000  # steps in which every bucket has its share; each round has its own order


@dataclasses.dataclass(frozen=True)
class Bucket:
    """One shape of batches; lengths are in frames."""

    shortest: int  # smallest real length of an item
    frames: int  # padded length of every item, and the largest real one
    rows: int  # items of a step, over all processes

    def size(self, room: int, rng: np.random.Generator) -> int:
        """Real length of an item: uniform over the bucket, but at most `room`."""
        return min(room, int(rng.integers(self.shortest, self.frames + 1)))


class Schedule:
    """The bucket and the items of every step, as functions of seed and step alone."""

    def __init__(self, config: BatchConfig, seed: int, frame_rate: float):
        """Raises `UserError` for lengths that round to the same, or too long for the budget."""
        lengths = [round(seconds * frame_rate) for seconds in config.buckets_s]
        if lengths != sorted(set(lengths)) or lengths[0] < 1:
            raise UserError(
                f"data.batches.buckets_s={config.buckets_s} are {lengths} frames at "
                f"{frame_rate:g} Hz; they must rise"
            )
        self.seed, self.row_multiple = seed, config.row_multiple
        first = round(config.shortest_s * frame_rate) or lengths[0] // 2 + 1
        shortest = [first, *(length + 1 for length in lengths[:-1])]
        rows = [
            config.token_budget // length // self.row_multiple * self.row_multiple
            for length in lengths
        ]
        if not rows[-1]:
            raise UserError(
                f"data.batches.token_budget={config.token_budget} is less than "
                f"data.batches.row_multiple={self.row_multiple} items of {lengths[-1]} frames "
                f"({config.buckets_s[-1]:g} s)"
            )
        self.buckets = [Bucket(*sizes) for sizes in zip(shortest, lengths, rows, strict=True)]
        shares = np.array(config.bucket_shares or [1.0] * len(lengths))
        steps = shares / np.multiply(lengths, rows)
        bounds = np.cumsum(steps / steps.sum())
        middles = (np.arange(ROUND) + 0.5) / ROUND
        self._pattern = np.minimum(np.searchsorted(bounds, middles), len(lengths) - 1)
        self._round_items = int(np.take(rows, self._pattern).sum())

    @property
    def padding(self) -> float:
        """The share of all frames that is padding, on average."""
        frames = [bucket.frames * bucket.rows for bucket in self.buckets]
        padded = [(bucket.frames - bucket.shortest) / 2 * bucket.rows for bucket in self.buckets]
        return float(np.take(padded, self._pattern).sum() / np.take(frames, self._pattern).sum())

    def bucket(self, step: int) -> Bucket:
        """The bucket of a step, counted from 0."""
        round_number, position = divmod(step, ROUND)
        return self.buckets[int(self._order(round_number)[position])]

    def first(self, step: int) -> int:
        """The number of the step's first item; items are numbered through all steps."""
        round_number, position = divmod(step, ROUND)
        before = self._order(round_number)[:position]
        rows = [bucket.rows for bucket in self.buckets]
        return round_number * self._round_items + int(np.take(rows, before).sum())

    def _order(self, round_number: int) -> Int[np.ndarray, " steps"]:
        """The bucket of each step of a round."""
        return _shuffled(self.seed, round_number, self._pattern.tobytes())


@functools.lru_cache(maxsize=4)
def _shuffled(seed: int, round_number: int, pattern: bytes) -> Int[np.ndarray, " steps"]:
    rng = np.random.default_rng((seed, 2, round_number))
    return rng.permutation(np.frombuffer(pattern, np.int64))
