"""What a study shows: fits of each domain, the test on the largest run, optimum and forecasts."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.scaling import parabolas
from sam_audio_jax.scaling.intervals import LEVEL, Uncertainty, uncertainty
from sam_audio_jax.scaling.law import Fit, Law, Values, fit
from sam_audio_jax.scaling.measured import PROMPTS, SISDRI, MeasuredLoss
from sam_audio_jax.scaling.optimum import PerUnit, best_size
from sam_audio_jax.scaling.prediction import (
    Reach,
    Results,
    held_out,
    points_of,
    without_least_data,
)
from sam_audio_jax.scaling.rates import best_rates
from sam_audio_jax.scaling.sizes import parameters, resized
from sam_audio_jax.scaling.study import StudyConfig, per_step

PARAMETERS = ("E", "A", "alpha", "B", "beta")
BEST_JUDGED = 5.0  # on the scale of judges


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
    scored = {name: None for row in usable for name in row.scores}
    scores = {name: _of_scores(usable, name) for name in scored}
    return results | {"losses": found, "scores": scores}


def definitions(study: StudyConfig, rows: Sequence[MeasuredLoss]) -> dict[str, str]:
    """What the numbers mean, the same for all sizes."""
    base = study.base
    repeat = "every mixture is made anew; the recordings in them repeat"
    if base.data.encoded:
        repeat = _readings(rows)
    text = "trained" if base.train_text else "frozen"
    alignment = base.alignment.weight
    scores = {"scores": _scores_in_words(study)} if any(row.scores for row in rows) else {}
    return {
        "N": "parameters of the separator with the projections of its conditions; not the codec, "
        f"nor the text encoder ({text}, the same in all sizes), nor an alignment head",
        "D": f"seconds of mixtures in the batches, padding too; {repeat}",
        "C": "operations of every network in the training step, forwards and backwards, text "
        "encoder and teacher too"
        + (
            "; codec and teacher ran once for the cache" if base.data.encoded else ", and the codec"
        ),
        "weights": f"{study.weights}, average of decay {base.optim.ema_decay} with a warm-up"
        if study.weights == "averaged"
        else "live",
        "losses": "held-out flow loss, prompts by text alone, at flow times 1/8, 3/8, 5/8 and 7/8 "
        f"with fixed noise, on {_mixtures(study)}",
        **scores,
        "training": f"rate constant after {base.optim.warmup_steps} steps of warm-up, "
        f"{base.parametrisation.kind} parametrisation, batch {base.batch}, "
        + (f"alignment of weight {alignment:g}" if alignment else "no alignment"),
        "noise": "90 % intervals by a wild bootstrap over runs; seeds differ in weights, noise and "
        "dropout, the order of the data is one",
    }


def _readings(rows: Sequence[MeasuredLoss]) -> str:
    """How long the cache is, and how often it is read or how much of it."""
    most = max((row.seconds for row in rows), default=0.0)
    cached = max((row.cache_seconds or 0.0 for row in rows), default=0.0)
    if not cached:  # old tables: the cache is what a longer run has read
        unique = max((row.unique_seconds or 0.0 for row in rows), default=0.0)
        cached = unique if unique < most else 0.0
    if not cached:
        return "a cache is read, and repeated mixtures count as new ones"
    held = f"the cache holds {cached / 3600:.2f} h"
    if most <= cached:
        return f"{held}: the longest run reads {100 * most / cached:.0f} % of it"
    return (
        f"{held}: the longest run reads it {most / cached:.1f} times, and repeated mixtures count "
        "as new ones"
    )


def _mixtures(study: StudyConfig) -> str:
    """What losses and scores are of."""
    limit = study.base.eval_limit
    return study.base.eval_bench + (f", {limit} mixtures of it" if limit else "")


def _scores_in_words(study: StudyConfig) -> str:
    """What scores are, and how they are fitted."""
    sampler = study.base.sampler
    stems = "as generated" if study.refine == "none" else "as a mask on the mixture"
    text = f"SI-SDR improvement of the target ({stems}) over the mixture"
    if study.judge:
        text += f", and its overall score by {study.judge}"
    return (
        f"{text}; of averaged weights, {sampler.steps} {sampler.method} steps, prompted by "
        f"{' and by '.join(PROMPTS)}, on {_mixtures(study)}; fitted as the ratio of powers"
        + (", the judge's as its distance from 5" if study.judge else "")
    )


def _all_first(name: str) -> tuple[bool, str]:
    return not name.startswith(ALL), name


def _of_losses(study: StudyConfig, rows: Sequence[MeasuredLoss], domain: str) -> Results:
    """The fit of one domain's losses."""
    rows = [row for row in rows if domain in row.losses]
    values = [row.losses[domain] for row in rows]
    try:
        fitted = fit(points_of(rows, values))
    except UserError as error:
        return {"missing": str(error)}
    sure = uncertainty(fitted)
    cost = _per_second(rows)
    found = law_figures(fitted, sure) | {"held_out": held_out(rows, values)}
    found["without_least_data"] = without_least_data(rows, values, found["intervals"])
    if domain != ALL:
        return found
    reach = Reach(rows)
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


def _per_second(rows: Sequence[MeasuredLoss]) -> PerUnit:
    """Operations for a second of training data by N, as counted at the study's sizes."""
    of = {row.parameters: row.operations / row.seconds for row in rows}
    return PerUnit(np.array(list(of)), np.array(list(of.values())))


def _optimum(fitted: Fit, sure: Uncertainty, budget: float, cost: PerUnit, reach: Reach) -> Results:
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
    law: Law, sure: Uncertainty, study: StudyConfig, width: int, hours: float, reach: Reach
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
    """The fit of a score, as a loss; and at each amount of data how it changes with the size."""
    rows = [row for row in rows if name in row.scores]
    found: Results = {"scores": len(rows), "by_size": _by_size(rows, name)}
    try:
        fitted = fit(points_of(rows, [as_loss(name, row.scores[name]) for row in rows]))
    except UserError as error:
        return found | {"missing": str(error)}
    return found | law_figures(fitted, uncertainty(fitted))


def as_loss(name: str, score: float) -> float:
    """A score as what falls towards a floor: the ratio of powers of an SI-SDR improvement, or how
    far a judge's score is from the best one."""
    if name.startswith(f"{SISDRI}/"):
        return 10 ** (-score / 10)
    return BEST_JUDGED - score


def as_score(name: str, loss: Values) -> Values:
    """What `as_loss` makes a loss of."""
    values = np.asarray(loss, np.float64)
    return -10 * np.log10(values) if name.startswith(f"{SISDRI}/") else BEST_JUDGED - values


def _by_size(rows: Sequence[MeasuredLoss], name: str) -> list[Results]:
    """What a doubling of N adds to a score, at each amount of data of three or more sizes.

    A straight line in log N by least squares over runs: no law, and not to be extrapolated.
    """
    found = []
    for seconds in sorted({row.seconds for row in rows}):
        own = [row for row in rows if row.seconds == seconds]
        doublings = np.log2([row.parameters for row in own])
        if len(np.unique(doublings)) < 3 or len(own) < 4:
            continue
        scores = np.array([row.scores[name] for row in own])
        slope, at_one = map(float, np.polyfit(doublings, scores, 1))
        left = scores - at_one - slope * doublings
        variance = np.sum(left**2) / (len(own) - 2) / np.sum((doublings - doublings.mean()) ** 2)
        half = float(np.sqrt(variance) * stats.t.ppf((1 + LEVEL) / 2, len(own) - 2))
        found.append(
            {
                "hours": seconds / 3600,
                "runs": len(own),
                "per_doubling": slope,
                "low": slope - half,
                "high": slope + half,
                "at_one": at_one,
            }
        )
    return found
