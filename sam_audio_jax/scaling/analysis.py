"""What a study shows: fits of each domain, the test on the largest run, optimum and forecasts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_audio_jax.errors import UserError
from sam_audio_jax.scaling import parabolas
from sam_audio_jax.scaling.intervals import Uncertainty, uncertainty
from sam_audio_jax.scaling.law import Fit, Law, Values, fit
from sam_audio_jax.scaling.measured import MeasuredLoss
from sam_audio_jax.scaling.optimum import PerUnit, best_size
from sam_audio_jax.scaling.points import Points, points
from sam_audio_jax.scaling.sizes import parameters, resized
from sam_audio_jax.scaling.study import StudyConfig, per_step

ALL = "all"
PARAMETERS = ("E", "A", "alpha", "B", "beta")
Results = dict[str, Any]


def analyse(study: StudyConfig, rows: Sequence[MeasuredLoss]) -> Results:
    """All results of a study as JSON values; a part that lacks points says so in `missing`."""
    usable = [row for row in rows if not row.diverged]
    left_out = {row.run: row.diverged for row in rows if row.diverged}
    results: Results = {
        "design": study.design,
        "definitions": definitions(study, rows),
        "left_out": left_out,
    }
    if study.design == "rates":
        return results | {"rates": best_rates(usable)}
    domains = sorted({domain for row in usable for domain in row.losses}, key=_all_first)
    found = {domain: _of_losses(study, usable, domain) for domain in domains}
    scored = sorted({name for row in usable for name in row.scores}, key=_all_first)
    scores = {name: _of_scores(usable, name) for name in scored}
    return results | {"losses": found, "scores": scores}


def definitions(study: StudyConfig, rows: Sequence[MeasuredLoss]) -> dict[str, str]:
    """What the numbers mean, the same for all sizes."""
    base = study.base
    most = max((row.seconds for row in rows), default=0.0)
    if base.data.cache:
        largest = max((row.unique_seconds or 0.0 for row in rows), default=0.0)
        repeat = (
            f"the cache holds {largest / 3600:.2f} h: the longest run reads it "
            f"{most / max(largest, 1e-9):.1f} times, and repeated mixtures count as new ones"
        )
    else:
        repeat = "every mixture is made anew; the recordings in them repeat"
    text = "trained" if base.train_text else "frozen"
    alignment = base.alignment.weight
    return {
        "N": "parameters of the separator with the projections of its conditions; not the codec, "
        f"nor the text encoder ({text}, the same in all sizes), nor an alignment head",
        "D": f"seconds of mixtures in the batches, padding too; {repeat}",
        "C": "operations of every network in the training step, forwards and backwards, text "
        "encoder and teacher too"
        + ("; codec and teacher ran once for the cache" if base.data.cache else ", and the codec"),
        "weights": f"{study.weights}, average of decay {base.optim.ema_decay} with a warm-up"
        if study.weights == "averaged"
        else "live",
        "losses": "held-out flow loss, prompts by text alone, at flow times 1/8, 3/8, 5/8 and 7/8 "
        f"with fixed noise, on {base.eval_bench}",
        "training": f"rate constant after {base.optim.warmup_steps} steps of warm-up, "
        f"{base.parametrisation.kind} parametrisation, batch {base.batch}, "
        + (f"alignment of weight {alignment:g}" if alignment else "no alignment"),
        "noise": "90 % intervals by a wild bootstrap over runs; seeds differ in weights, noise and "
        "dropout, the order of the data is one",
    }


def _all_first(name: str) -> tuple[bool, str]:
    return not name.startswith(ALL), name


def _points(rows: Sequence[MeasuredLoss], values: Sequence[float]) -> Points:
    names = {name: number for number, name in enumerate(dict.fromkeys(row.run for row in rows))}
    return points(
        [row.parameters for row in rows],
        [row.seconds for row in rows],
        values,
        [names[row.run] for row in rows],
    )


def _of_losses(study: StudyConfig, rows: Sequence[MeasuredLoss], domain: str) -> Results:
    """The fit of one domain's losses."""
    rows = [row for row in rows if domain in row.losses]
    values = [row.losses[domain] for row in rows]
    try:
        fitted = fit(_points(rows, values))
    except UserError as error:
        return {"missing": str(error)}
    sure = uncertainty(fitted)
    cost = _per_second(rows)
    found = law_figures(fitted, sure) | {"held_out": held_out(rows, values)}
    if domain != ALL:
        return found
    reach = _Reach(rows)
    found["optimum"] = [
        _optimum(fitted, sure, budget, cost, reach) for budget in study.forecast_budgets
    ]
    found["forecasts"] = [
        _forecast(fitted.law, sure, study, width, hours, reach) for width, hours in study.forecasts
    ]
    found["parabolas"] = _parabolas(study, rows, values)
    return found


def law_figures(fitted: Fit, sure: Uncertainty) -> Results:
    """The law with its intervals, and how well the points fix it."""
    return {
        "law": fitted.law.as_dict(),
        "intervals": {
            name: sure.of(
                fitted.law, lambda law, name=name: np.asarray(getattr(law, name))
            ).as_dict()
            for name in PARAMETERS
        },
        "points": len(fitted.points),
        "runs": len(np.unique(fitted.points.run)),
        "scatter": fitted.scale,
        "outliers": int(fitted.outliers.sum()),
        "undetermined": fitted.exponents_at_edge,
    }


def held_out(rows: Sequence[MeasuredLoss], values: Sequence[float]) -> Results:
    """The test of the law: the largest run is left out of a fit, which then predicts its loss.

    The error is a share of the spread between the largest and the smallest loss, as most of a loss
    is irreducible; the naive guess is the loss of the second largest run. Every run of the largest
    run's size is left out.
    """
    at = max(
        range(len(rows)), key=lambda number: (rows[number].operations, rows[number].parameters)
    )
    largest, truth = rows[at], values[at]
    kept = [number for number, row in enumerate(rows) if row.width != largest.width]
    try:
        fitted = fit(_points([rows[k] for k in kept], [values[k] for k in kept]))
    except UserError as error:
        return {"missing": str(error)}
    interval = uncertainty(fitted).of_new_run(fitted.law, largest.parameters, largest.seconds)
    second = max(kept, key=lambda number: rows[number].operations)
    spread = max(values) - min(values)
    return {
        "run": largest.run,
        "step": largest.step,
        "loss": truth,
        "predicted": interval.as_dict(),
        "inside": truth in interval,
        "error_of_spread": abs(interval.value - truth) / spread,
        "naive_run": rows[second].run,
        "naive_error_of_spread": abs(values[second] - truth) / spread,
        "extrapolated": _Reach([rows[k] for k in kept]).words(
            largest.parameters, largest.seconds, largest.operations
        ),
    }


@dataclasses.dataclass(frozen=True)
class _Reach:
    """How far beyond the runs of a fit something lies."""

    rows: Sequence[MeasuredLoss]

    def words(self, n: float | int, seconds: float, spent: float | int) -> str:
        """`extrapolated 12 times in N, ...`, of what lies beyond the largest run."""
        of = {
            "N": n / max(row.parameters for row in self.rows),
            "D": seconds / max(row.seconds for row in self.rows),
            "C": spent / max(row.operations for row in self.rows),
        }
        beyond = [f"{ratio:.3g} times in {name}" for name, ratio in of.items() if ratio > 1.005]
        return f"extrapolated {', '.join(beyond)}" if beyond else "within the runs of the fit"


def _per_second(rows: Sequence[MeasuredLoss]) -> PerUnit:
    """Operations for a second of training data by N, as counted at the study's sizes."""
    of = {row.parameters: row.operations / row.seconds for row in rows}
    return PerUnit(np.array(list(of)), np.array(list(of.values())))


def _optimum(
    fitted: Fit, sure: Uncertainty, budget: float, cost: PerUnit, reach: _Reach
) -> Results:
    """The best size for a budget, its data and its loss."""
    around = (float(fitted.points.n.min()), float(fitted.points.n.max()))

    def size(law: Law) -> Values:
        return best_size(law, budget, cost, around)

    def loss(law: Law) -> Values:
        n = size(law)
        return law.each(n, budget / cost(n))

    n = sure.of(fitted.law, size)
    seconds = float(budget / cost(np.array(n.value)))
    return {
        "operations": budget,
        "parameters": n.as_dict(),
        "hours": seconds / 3600,
        "loss": sure.of(fitted.law, loss).as_dict(),
        "extrapolated": reach.words(n.value, seconds, budget),
    }


def _forecast(
    law: Law, sure: Uncertainty, study: StudyConfig, width: int, hours: float, reach: _Reach
) -> Results:
    """The loss of a training of another width and amount of data, under the study's conditions."""
    config = resized(study.base, width)
    n, seconds = parameters(config.separator), 3600 * hours
    step = config.batch * config.data.mix.seconds
    spent = per_step(config) * seconds / step
    interval = sure.of(law, lambda one: one(n, seconds))
    return {
        "width": width,
        "parameters": n,
        "hours": hours,
        "operations": spent,
        "loss": interval.as_dict(),
        "extrapolated": reach.words(n, seconds, spent),
    }


def _parabolas(
    study: StudyConfig, rows: Sequence[MeasuredLoss], values: Sequence[float]
) -> Results:
    """The IsoFLOP parabolas, which are biased."""
    if study.design == "isoflop":
        groups: dict[float, list[int]] = {}
        for number, row in enumerate(rows):
            nearest = min(study.budgets, key=lambda budget: abs(np.log(budget / row.operations)))
            groups.setdefault(nearest, []).append(number)
        cut = [
            parabolas.IsoFlop(
                budget,
                np.array([rows[k].parameters for k in group], np.float64),
                np.array([values[k] for k in group]),
            )
            for budget, group in sorted(groups.items())
        ]
    else:
        cut = parabolas.slices(
            [row.parameters for row in rows], [row.operations for row in rows], values
        )
    found = [one for one in map(parabolas.vertex, cut) if one is not None]
    line = parabolas.line_through(found)
    return {
        "slices": len(cut),
        "minima": [dataclasses.asdict(one) for one in found],
        "exponent": None if line is None else line[0],
        "factor": None if line is None else line[1],
    }


def _of_scores(rows: Sequence[MeasuredLoss], name: str) -> Results:
    """The fit of an SI-SDR improvement, by the ratio of powers that it stands for."""
    rows = [row for row in rows if name in row.scores]
    try:
        fitted = fit(_points(rows, [10 ** (-row.scores[name] / 10) for row in rows]))
    except UserError as error:
        return {"missing": str(error)}
    return law_figures(fitted, uncertainty(fitted))


def best_rates(rows: Sequence[MeasuredLoss]) -> list[Results]:
    """For each width the rate with the lowest loss, by a parabola in its logarithm, over all seeds.

    `inside` is False where the minimum is at an end of the sweep, so that the sweep is too narrow.
    """
    found = []
    for width in sorted({row.width for row in rows}):
        own = [row for row in rows if row.width == width]
        rates = sorted({row.rate for row in own})
        means = [float(np.mean([r.losses[ALL] for r in own if r.rate == rate])) for rate in rates]
        at = int(np.argmin(means))
        inside = 0 < at < len(rates) - 1
        best = rates[at]
        if inside:
            near = slice(at - 1, at + 2)
            square, line, _ = np.polyfit(np.log(rates[near]) - np.log(best), means[near], 2)
            best = float(best * np.exp(-line / (2 * square))) if square > 0 else best
        seeds = len({row.seed for row in own})
        found.append(
            {
                "width": width,
                "rates": rates,
                "losses": means,
                "best": best,
                "inside": inside,
                "seeds": seeds,
            }
        )
    return found
