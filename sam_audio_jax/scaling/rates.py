"""What a sweep of the rate shows: the best rate of each width, and how far it moves."""

from collections.abc import Sequence

import numpy as np

from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.scaling.measured import MeasuredLoss
from sam_audio_jax.scaling.prediction import Results


def best_rates(rows: Sequence[MeasuredLoss]) -> list[Results]:
    """For each width the rate with the lowest loss, by a parabola in its logarithm, over all seeds.

    `inside` is False where the minimum is at an end of the sweep, so that the sweep is too narrow;
    `spreads` are highest less lowest loss of the seeds, None of a single one; `of_seeds` are the
    best rates of each seed alone, None where it is at an end.
    """
    found = []
    for width in sorted({row.width for row in rows}):
        own = [row for row in rows if row.width == width]
        rates = sorted({row.rate for row in own})
        seeds = sorted({row.seed for row in own})
        losses = [[row.losses[ALL] for row in own if row.rate == rate] for rate in rates]
        means = [float(np.mean(values)) for values in losses]
        best, inside = lowest(rates, means)
        alone = []
        for seed in seeds:
            curve = {row.rate: row.losses[ALL] for row in own if row.seed == seed}
            rate, is_inside = lowest(sorted(curve), [curve[key] for key in sorted(curve)])
            alone.append(rate if is_inside else None)
        found.append(
            {
                "width": width,
                "rates": rates,
                "losses": means,
                "spreads": [
                    max(values) - min(values) if len(values) > 1 else None for values in losses
                ],
                "best": best,
                "inside": inside,
                "seeds": len(seeds),
                "of_seeds": alone,
            }
        )
    return found


def lowest(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, bool]:
    """The rate of the lowest loss, and whether it is inside the sweep.

    Inside it is the minimum of the parabola in the logarithm of the rate through the lowest loss
    and its two neighbours, which lies between these.
    """
    at = int(np.argmin(losses))
    if not 0 < at < len(rates) - 1:
        return float(rates[at]), False
    near = slice(at - 1, at + 2)
    square, line, _ = np.polyfit(np.log(rates[near]) - np.log(rates[at]), losses[near], 2)
    best = rates[at] * np.exp(-line / (2 * square)) if square > 0 else rates[at]
    return float(best), True


def rate_lines(found: Sequence[Results]) -> list[str]:
    """The best rate of each width, and how far it moves."""
    lines = []
    for one in found:
        alone = [rate for rate in one["of_seeds"] if rate is not None]
        text = f"width {one['width']}: best rate {one['best']:.3g} of {len(one['rates'])}"
        if not one["inside"]:
            text += ", AT THE END of the sweep"
        elif len(alone) > 1:
            text += f" ({min(alone):.3g} to {max(alone):.3g} by single seeds)"
        lines.append(f"{text}; {one['seeds']} seeds.")
    if len(found) > 1:
        best = [one["best"] for one in found]
        lines.append(
            "From width to width the best rate moves by a factor of "
            f"{_bound(found)}{max(best) / min(best):.2f}."
        )
    return lines


def _bound(found: Sequence[Results]) -> str:
    """How minima at the end of their sweep, which lie beyond it, change the factor of the rates."""
    rates = [one["best"] for one in found]
    highest, lowest_of_all = max(rates), min(rates)
    wider = {
        (one["best"] == highest and one["best"] == max(one["rates"]))
        or (one["best"] == lowest_of_all and one["best"] == min(one["rates"]))
        for one in found
        if not one["inside"]
    }
    if not wider:
        return ""
    return "at least " if wider == {True} else "about "
