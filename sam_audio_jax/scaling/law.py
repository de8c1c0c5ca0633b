"""The law L(N, D) = E + A / N^alpha + B / D^beta, fitted to the losses of runs.

The form is that of arXiv 2203.15556, section 3.3. The fit is a grid over the two exponents, with
non-negative linear least squares inside, as arXiv 2603.22339 proposes, so that no start matters;
the best cell is then refined by Gauss-Newton steps on all five parameters. The loss is Huber's, of
the residuals in log space. Pure NumPy: nothing here needs JAX.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float

from sam_audio_jax.scaling.points import Points, check_for_fit

EXPONENTS = np.geomspace(0.03, 2.4, 30)  # the grid's, of both N and D
RANGE = (0.01, 4.0)  # of the refined exponents
SMALLEST_LOG = -30.0  # of E, A, B beside the typical loss: 0 for all purposes
FIRST_DELTA = 1e-3  # of the fit whose residuals give the scale
HUBER = 1.345  # deltas in standard deviations: 95 % efficient for normal residuals
LEAST_SCALE = 1e-7  # of residuals, so that exact losses can be fitted
ITERATIONS = 8  # of reweighting on the grid
STEPS = 30  # of refinement
PARAMETERS = 5

Values = np.ndarray | float | int
Theta = Float[np.ndarray, "*laws 5"]  # log E, log A, log B, alpha, beta; for centred N and D


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """One law, or, with arrays of one length as parameters, as many of them."""

    E: float | Float[np.ndarray, " laws"]  # the irreducible loss
    A: float | Float[np.ndarray, " laws"]
    alpha: float | Float[np.ndarray, " laws"]
    B: float | Float[np.ndarray, " laws"]
    beta: float | Float[np.ndarray, " laws"]

    def __call__(self, n, d) -> Values:
        """The loss at N and D, which broadcast; with many laws they are the first axis."""
        n, d = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(d, np.float64))
        trailing = (1,) * n.ndim
        e, a, alpha, b, beta = (v.reshape(v.shape + trailing) for v in self._arrays())
        return _loss(e, a, alpha, b, beta, n, d)

    def each(self, n, d) -> Values:
        """The loss of each of many laws at an N and D of its own."""
        e, a, alpha, b, beta = self._arrays()
        return _loss(e, a, alpha, b, beta, np.asarray(n), np.asarray(d))

    def _arrays(self) -> list[np.ndarray]:
        """The five parameters."""
        values = (self.E, self.A, self.alpha, self.B, self.beta)
        return [np.asarray(value, np.float64) for value in values]

    def as_dict(self) -> dict[str, float]:
        """The parameters by name, for JSON."""
        return {name: float(value) for name, value in dataclasses.asdict(self).items()}


def _loss(e, a, alpha, b, beta, n, d) -> Values:
    return e + a * n**-alpha + b * d**-beta


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A fitted law with what the intervals need: residuals and their scale."""

    law: Law
    points: Points
    theta: Theta
    delta: float  # of Huber's loss
    scale: float  # robust standard deviation of the residuals, of log loss
    residuals: Float[np.ndarray, " points"]  # log of the law over the measured loss
    exponents_at_edge: bool  # of `RANGE`, or of a factor that is 0: the points do not fix the law

    @property
    def outliers(self) -> np.ndarray:
        """The points whose residual is more than five standard deviations."""
        return np.abs(self.residuals) > 5 * max(self.scale, LEAST_SCALE)


def fit(points: Points) -> Fit:
    """The law of the points. Raises `UserError` for points that do not fix one."""
    check_for_fit(points)
    x, z, log_loss = centred(points)
    theta, delta = _on_grid(x, z, log_loss, FIRST_DELTA), FIRST_DELTA
    for _ in range(2):  # the scale of the residuals of a robust fit, then the fit by that scale
        theta = refine(theta[None], x, z, log_loss[None], delta)[0]
        scale = _scale(residuals(theta, x, z, log_loss))
        delta = HUBER * scale
    theta = refine(theta[None], x, z, log_loss[None], delta)[0]
    left = residuals(theta, x, z, log_loss)
    inside = RANGE[0] < min(theta[3:]) and max(theta[3:]) < RANGE[1]
    return Fit(
        law=law_of(theta, points),
        points=points,
        theta=theta,
        delta=delta,
        scale=_scale(left),
        residuals=left,
        exponents_at_edge=bool(not inside or min(theta[1:3]) <= SMALLEST_LOG / 2),
    )


def law_of(theta: Theta, points: Points) -> Law:
    """The law in the units of the points; laws for rows of parameters."""
    mean_n, mean_d = np.mean(np.log(points.n)), np.mean(np.log(points.d))
    log_e, log_a, log_b, alpha, beta = np.moveaxis(theta, -1, 0)
    with np.errstate(over="ignore"):
        a, b = np.exp(log_a + alpha * mean_n), np.exp(log_b + beta * mean_d)
    values = (np.exp(log_e), a, alpha, b, beta)
    return Law(*(float(value) if np.ndim(value) == 0 else value for value in values))


def centred(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log N and log D around their means, and log loss."""
    x, z = np.log(points.n), np.log(points.d)
    return x - x.mean(), z - z.mean(), np.log(points.loss)


def residuals(theta: Theta, x, z, log_loss) -> np.ndarray:
    """Log of the law over the loss."""
    return term_shares(theta, x, z)[1] - log_loss


def term_shares(theta: Theta, x, z) -> tuple[np.ndarray, np.ndarray]:
    """The three terms of the law as shares of their sum, on a last axis, and the log of the sum."""
    log_e, log_a, log_b, alpha, beta = (theta[..., k, None] for k in range(PARAMETERS))
    logs = np.stack(np.broadcast_arrays(log_e + 0 * x, log_a - alpha * x, log_b - beta * z), -1)
    largest = logs.max(-1, keepdims=True)
    terms = np.exp(logs - largest)
    total = terms.sum(-1)
    return terms / total[..., None], np.log(total) + largest[..., 0]


def _scale(left: np.ndarray) -> float:
    """The robust standard deviation of residuals that five parameters were fitted to."""
    spread = 1.4826 * np.median(np.abs(left))
    return max(spread * np.sqrt(len(left) / max(len(left) - PARAMETERS, 1)), LEAST_SCALE)


def _cost(left: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss of residuals, summed over the points."""
    size = np.abs(left)
    return np.sum(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)), -1)


def _on_grid(x, z, log_loss, delta: float) -> Theta:
    """The best law whose exponents are on the grid."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(EXPONENTS, EXPONENTS, indexing="ij"))
    loss = np.exp(log_loss)
    terms = (1.0, np.exp(-alpha[:, None] * x), np.exp(-beta[:, None] * z))
    # As shares of the measured loss, [cells, points, 3].
    columns = np.stack(np.broadcast_arrays(*terms), -1) / loss[:, None]
    factors, left = _reweighted(columns, delta)
    best = int(np.argmin(_cost(left, delta)))
    logs = np.log(np.maximum(factors[best], np.exp(SMALLEST_LOG)))
    return np.array([*logs, alpha[best], beta[best]])


def _reweighted(columns: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """The factors of the columns with the least Huber's loss in each cell, and the residuals."""
    weights = np.ones(columns.shape[:-1])
    factors, left = np.zeros((len(columns), 3)), weights
    for _ in range(ITERATIONS):
        factors = _nonnegative(columns, weights)
        ratio = np.maximum(np.einsum("cpk,ck->cp", columns, factors), 1e-12)
        left = np.log(ratio)
        size = np.maximum(np.abs(left), 1e-15)
        # Least squares of `ratio - 1` with these weights has the minimum of Huber's loss of `left`.
        slope = np.where(size > 1e-9, left / np.where(size > 1e-9, ratio - 1, 1.0), 1.0)
        weights = np.minimum(1.0, delta / size) * slope / ratio
    return factors, left


def _nonnegative(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares of 1 on three columns, in every cell, with factors of at least 0.

    The minimum has some of the factors at 0 and the gradient of the others at 0: the best of the
    seven such solutions that are allowed.
    """
    gram = np.einsum("cpi,cp,cpj->cij", columns, weights, columns)
    right = np.einsum("cpi,cp->ci", columns, weights)
    ridge = 1e-13 * np.trace(gram, axis1=1, axis2=2)[:, None, None]
    best, factors = np.full(len(gram), -np.inf), np.zeros((len(gram), 3))
    for count in (1, 2, 3):
        for free in map(list, itertools.combinations(range(3), count)):
            part = gram[:, free][:, :, free] + ridge * np.eye(count)
            solved = np.linalg.solve(part, right[:, free][..., None])[..., 0]
            gain = np.sum(solved * right[:, free], -1)  # of the sum of squares
            lower = (solved >= 0).all(-1) & (gain > best)
            best = np.where(lower, gain, best)
            factors[lower] = 0.0
            factors[np.ix_(lower, free)] = solved[lower]
    return factors


def refine(theta: Theta, x, z, log_loss, delta: float, steps: int = STEPS) -> Theta:
    """Damped Gauss-Newton steps from each of many laws, each with its own losses `[laws, points]`.

    A step that does not lower Huber's loss is not made, and its damping is raised.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    shares, log_law = term_shares(theta, x, z)
    left = log_law - log_loss
    cost = _cost(left, delta)
    for _ in range(steps):
        weights = np.minimum(1.0, delta / np.maximum(np.abs(left), 1e-300))
        jacobian = slopes(shares, x, z)
        hessian = np.einsum("lpi,lp,lpj->lij", jacobian, weights, jacobian)
        gradient = np.einsum("lpi,lp->li", jacobian, weights * left)
        diagonal = np.einsum("lii->li", hessian)
        raised = damping[:, None] * diagonal + 1e-12 * diagonal.max(-1, keepdims=True) + 1e-30
        step = np.linalg.solve(
            hessian + raised[:, :, None] * np.eye(PARAMETERS), gradient[..., None]
        )
        proposed = _bounded(theta - np.clip(step[..., 0], -1.0, 1.0))
        new_shares, new_log = term_shares(proposed, x, z)
        new_left = new_log - log_loss
        new_cost = _cost(new_left, delta)
        lower = np.asarray(new_cost < cost)
        damping = np.clip(np.where(lower, damping * 0.3, damping * 5.0), 1e-9, 1e9)
        theta = np.where(lower[:, None], proposed, theta)
        shares = np.where(lower[:, None, None], new_shares, shares)
        left, cost = np.where(lower[:, None], new_left, left), np.where(lower, new_cost, cost)
    return theta


def slopes(shares: np.ndarray, x, z) -> np.ndarray:
    """Derivatives of the log of the law by the five parameters, on a last axis."""
    e, a, b = np.moveaxis(shares, -1, 0)
    return np.stack([e, a, b, -x * a, -z * b], -1)


def _bounded(theta: Theta) -> Theta:
    """Parameters within their ranges."""
    logs, exponents = theta[..., :3], theta[..., 3:]
    return np.concatenate([np.maximum(logs, SMALLEST_LOG), np.clip(exponents, *RANGE)], axis=-1)
