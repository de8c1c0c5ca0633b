"""How sure a fitted law is: laws of resampled losses, and intervals from them.

A wild bootstrap over runs: the design stays as it is, and the residuals of each run are multiplied
by one random number, so that what varies between runs and seeds varies between the resampled
losses too, whatever its size at each N and D. Residuals would be too small, as five parameters
follow the noise of few runs: those of each run are divided by what the fit leaves of it, which
makes them those of a fit without this run (CR3 in Bell and McCaffrey, "Bias reduction in standard
errors for linear regression with multi-stage samples", 2002). They are raised by the ratio of
Student's to the normal quantile, too, because their size is estimated.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import stats

from sam_audio_jax.scaling.law import (
    PARAMETERS,
    Fit,
    Law,
    Values,
    centred,
    law_of,
    refine,
    slopes,
    term_shares,
)

REPLICATES = 400
LEVEL = 0.9
# A run's residuals are multiplied by one of these (Webb's six values: mean 0, variance 1), so that
# few runs give many outcomes.
MULTIPLIERS = np.concatenate([np.sqrt([0.5, 1.0, 1.5]), -np.sqrt([0.5, 1.0, 1.5])])
LARGEST_LEVERAGE = 0.95


@dataclasses.dataclass(frozen=True)
class ConfidenceInterval:
    """A value of a fit, and the bounds that hold the truth in 90 of 100 studies."""

    value: float
    low: float
    high: float

    def __contains__(self, value: Values) -> bool:
        return bool(self.low <= value <= self.high)

    def as_dict(self) -> dict[str, float]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Uncertainty:
    """The laws of resampled losses."""

    laws: Law  # of arrays
    noise: Float[np.ndarray, " points"]  # residuals of log loss as large as those of a new run
    seed: int

    def interval(self, value: float, values: np.ndarray) -> ConfidenceInterval:
        """The interval of a value from its values under the resampled laws."""
        finite = values[np.isfinite(values)]
        low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return ConfidenceInterval(float(value), float(low), float(high))

    def of(self, law: Law, quantity: Callable[[Law], Values]) -> ConfidenceInterval:
        """The interval of a quantity of a law, a function that takes many laws at once as well."""
        return self.interval(float(quantity(law)), np.asarray(quantity(self.laws)))

    def of_new_run(self, law: Law, n: Values, d: Values) -> ConfidenceInterval:
        """The interval of the loss that a single new run will have: the law's, and a run's noise.

        Seeds differ by more than the law does; a run that is held out must be compared with this.
        """
        rng = np.random.default_rng((self.seed, 1))
        values = np.asarray(self.laws(n, d))
        noise = rng.choice(self.noise, values.shape)
        return self.interval(float(law(n, d)), values * np.exp(noise))


def uncertainty(fitted: Fit, *, replicates: int = REPLICATES, seed: int = 0) -> Uncertainty:
    """Refits the law to resampled losses; the same seed gives the same laws."""
    x, z, _ = centred(fitted.points)
    shares, log_law = term_shares(fitted.theta, x, z)
    names, of_run = np.unique(fitted.points.run, return_inverse=True)
    left = left_out_residuals(fitted, slopes(shares, x, z), of_run)
    freedom = max(len(names) - PARAMETERS, 1)
    left = left * stats.t.ppf((1 + LEVEL) / 2, freedom) / stats.norm.ppf((1 + LEVEL) / 2)
    rng = np.random.default_rng((seed, 0))
    factors = rng.choice(MULTIPLIERS, (replicates, len(names)))[:, of_run]
    # A residual is the law over the loss, so a loss is the law without it.
    resampled = log_law - factors * left
    start = np.repeat(fitted.theta[None], replicates, 0)
    theta = refine(start, x, z, resampled, fitted.delta)
    count = len(fitted.residuals)
    noise = -fitted.residuals * np.sqrt(count / max(count - PARAMETERS, 1))
    return Uncertainty(laws=law_of(theta, fitted.points), noise=noise, seed=seed)


def left_out_residuals(
    fitted: Fit, jacobian: Float[np.ndarray, "points parameters"], of_run: np.ndarray
) -> Float[np.ndarray, " points"]:
    """The residuals that each run would have, to first order, if the law were fitted without it."""
    size = np.maximum(np.abs(fitted.residuals), 1e-300)
    weights = np.minimum(1.0, fitted.delta / size)
    gram = np.einsum("pi,p,pj->ij", jacobian, weights, jacobian)
    inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
    left = np.empty_like(fitted.residuals)
    for run in range(of_run.max() + 1):
        own = np.flatnonzero(of_run == run)
        scaled = jacobian[own] * np.sqrt(weights[own])[:, None]
        # How far the law follows these points alone, along each of their principal directions: 0
        # not at all, 1 wholly.
        leverage, directions = np.linalg.eigh(scaled @ inverse @ scaled.T)
        raised = directions / (1 - np.clip(leverage, 0.0, LARGEST_LEVERAGE)) @ directions.T
        root = np.sqrt(weights[own])
        left[own] = raised @ (fitted.residuals[own] * root) / root
    return left
