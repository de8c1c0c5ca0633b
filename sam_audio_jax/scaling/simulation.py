"""Studies of a planted law: whether fits recover it, and how often the intervals hold the truth.

python -m sam_audio_jax.scaling.simulation        # the table of docs/scaling.md, "Fits"
"""

import dataclasses
import sys

import numpy as np

from sam_audio_jax.scaling.intervals import uncertainty
from sam_audio_jax.scaling.law import Law, Values, fit
from sam_audio_jax.scaling.optimum import best_size
from sam_audio_jax.scaling.parabolas import IsoFlop, line_through, vertex
from sam_audio_jax.scaling.points import Points, points

# Like the laws of published studies, with the losses of a flow.
PLANTED = Law(E=0.55, A=8.0, alpha=0.34, B=5.0, beta=0.29)
UNEVEN = Law(E=0.55, A=60.0, alpha=0.5, B=2.0, beta=0.2)  # larger networks gain more than data
OPERATIONS = 150.0  # for a parameter and a second of sound: 6 at 25 frames a second
FORECAST = 100.0  # the budget of the optimum, beside the largest of the study


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedStudy:
    """What a simulated study measures."""

    law: Law = PLANTED
    sizes: tuple[float, ...] = tuple(np.geomspace(3e4, 5e6, 6))
    amounts: tuple[float, ...] = tuple(np.geomspace(2e4, 6e5, 5))
    seeds: int = 1
    noise: float = 0.005  # standard deviation of log loss
    # Of what all amounts of data of a size and seed share; above 0 they are one long run.
    run_noise: float = 0.0
    outliers: int = 0  # losses that are wrong by 10 %

    @property
    def largest(self) -> float:
        """The operations of the largest run."""
        return OPERATIONS * max(self.sizes) * max(self.amounts)


LONG = SimulatedStudy(
    sizes=tuple(np.geomspace(3e4, 5e6, 10)), seeds=2, noise=0.002, run_noise=0.004
)


def simulated(design: SimulatedStudy, rng: np.random.Generator) -> Points:
    """One study of the design: sizes x amounts x seeds, each a run."""
    axes = (design.sizes, range(design.seeds), design.amounts)
    n, _, d = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    log_loss = np.log(design.law(n, d)) + design.noise * rng.standard_normal(len(n))
    run = np.arange(len(n))
    if design.run_noise:
        run //= len(design.amounts)
        log_loss += design.run_noise * rng.standard_normal(run[-1] + 1)[run]
    wrong = rng.choice(len(n), design.outliers, replace=False)
    log_loss[wrong] += 0.1 * rng.choice([-1.0, 1.0], design.outliers)
    return points(n, d, np.exp(log_loss), run)


def cost(n: Values) -> Values:
    """Operations for a second of sound, of simulated networks."""
    return OPERATIONS * np.asarray(n)


def coverage(
    design: SimulatedStudy, *, studies: int, replicates: int, seed: int = 0
) -> dict[str, float]:
    """The shares of studies whose intervals hold the truth: of parameters, optimum and forecast.

    The optimum is the size for `FORECAST` times the operations of the largest run; the forecast is
    the loss there, and `new run` is the noisy loss of one more run at twice the largest N and D.
    """
    budget, around = FORECAST * design.largest, (min(design.sizes), max(design.sizes))
    law = design.law

    def optimum(one: Law) -> Values:
        return np.log(best_size(one, budget, cost, around))

    true_n = float(np.exp(optimum(law)))
    far = (true_n, budget / cost(np.array(true_n)))
    near = (2 * max(design.sizes), 2 * max(design.amounts))
    held: dict[str, list[bool]] = {}
    for number in range(studies):
        rng = np.random.default_rng((seed, number))
        fitted = fit(simulated(design, rng))
        sure = uncertainty(fitted, replicates=replicates, seed=number)
        noise = np.hypot(design.noise, design.run_noise)
        new_run = law(*near) * np.exp(noise * rng.standard_normal())
        truths = {
            "optimum": (sure.of(fitted.law, optimum), np.log(true_n)),
            "forecast": (sure.of(fitted.law, lambda one: one(*far)), law(*far)),
            "new run": (sure.of_new_run(fitted.law, *near), new_run),
        }
        for name in ("E", "alpha", "beta"):
            interval = sure.of(fitted.law, lambda one, name=name: np.asarray(getattr(one, name)))
            truths[name] = (interval, getattr(law, name))
        for name, (interval, truth) in truths.items():
            held.setdefault(name, []).append(float(truth) in interval)
    return {name: float(np.mean(values)) for name, values in held.items()}


def optima(design: SimulatedStudy, *, studies: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Optimal sizes over the true one at `FORECAST` times the largest run: by law and parabolas.

    The parabolas get slices of their own: as many runs, at five budgets, with sizes from a fifth to
    five times the true optimum of each; `off centre` those of half of these sizes.
    """
    budget, around = FORECAST * design.largest, (min(design.sizes), max(design.sizes))
    true_n = float(best_size(design.law, budget, cost, around))
    centres = {"parabolas": 1.0, "off centre": 0.5}
    found: dict[str, list[float]] = {"law": [], **{way: [] for way in centres}}
    for number in range(studies):
        rng = np.random.default_rng((seed, number))
        law = fit(simulated(design, rng)).law
        found["law"].append(float(best_size(law, budget, cost, around)) / true_n)
        for way, centre in centres.items():
            minima = map(vertex, _slices(design, rng, centre))
            line = line_through([one for one in minima if one is not None])
            if line is not None:
                found[way].append(line[1] * budget ** line[0] / true_n)
    return {name: np.array(values) for name, values in found.items()}


def _slices(design: SimulatedStudy, rng: np.random.Generator, centre: float) -> list[IsoFlop]:
    """Five slices of the design's law, with sizes around `centre` times the optimum of each."""
    cut = []
    for budget in np.geomspace(design.largest / 300, design.largest, 5):
        around = (min(design.sizes), max(design.sizes))
        best = float(best_size(design.law, budget, cost, around))
        n = centre * best * np.geomspace(0.2, 5.0, len(design.sizes))
        loss = design.law(n, budget / cost(n))
        cut.append(IsoFlop(budget, n, loss * np.exp(design.noise * rng.standard_normal(len(n)))))
    return cut


def main(argv: list[str]) -> None:
    """Prints coverage and bias for a few designs; the argument is the number of studies."""
    studies = int(argv[0]) if argv else 500
    designs = {
        "30 runs": SimulatedStudy(),
        "30 runs, one wrong by 10 %": SimulatedStudy(outliers=1),
        "30 runs, half the noise": SimulatedStudy(noise=0.0025),
        "90 runs, three seeds": SimulatedStudy(seeds=3),
        "20 long runs of ten sizes": LONG,
    }
    for name, design in designs.items():
        shares = coverage(design, studies=studies, replicates=200)
        print(f"{name}: " + ", ".join(f"{what} {share:.1%}" for what, share in shares.items()))
    exact = SimulatedStudy(noise=0.0)
    uneven = dataclasses.replace(exact, law=UNEVEN)
    exact_ones = {"without noise": exact, "without noise, uneven exponents": uneven}
    for name, design in (exact_ones | designs).items():
        ratios = optima(design, studies=1 if design.noise == 0 else studies)
        texts = [
            f"{way} {np.median(r):.2f} ({np.quantile(r, 0.05):.2f} to {np.quantile(r, 0.95):.2f})"
            for way, r in ratios.items()
            if len(r)
        ]
        print(f"optimum over the true one, {name}: {', '.join(texts)}")


if __name__ == "__main__":
    main(sys.argv[1:])
