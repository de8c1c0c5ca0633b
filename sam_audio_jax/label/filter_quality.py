"""How well a score separates good labels from bad ones, where the true stems are known."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from sam_audio_jax.eval.statistics import LEVEL, RESAMPLES, Interval


def auc(scores: Float[np.ndarray, " labels"], good: Bool[np.ndarray, " labels"]) -> float:
    """The probability that a good label has a higher score than a bad one; ties count half.

    It is the area under the ROC curve; NaN where all labels are good, or all are bad.
    """
    positive, negative = int(good.sum()), int((~good).sum())
    if not positive or not negative:
        return float("nan")
    ranks = scipy.stats.rankdata(scores)
    return float((ranks[good].sum() - positive * (positive + 1) / 2) / (positive * negative))


def auc_interval(
    scores: Sequence[float],
    good: Sequence[bool],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """`auc` with its percentile interval over resampled labels; None where it is not defined.

    Resamples without both kinds of labels are left out.
    """
    values, kinds = np.asarray(scores, np.float64), np.asarray(good, bool)
    found = auc(values, kinds)
    if np.isnan(found):
        return None
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(values), (resamples, len(values)))
    resampled = np.array([auc(values[row], kinds[row]) for row in rows])
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(resampled, [outside, 1 - outside])
    return Interval(found, float(low), float(high), len(values))
