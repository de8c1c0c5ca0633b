"""The page of a study: what it shows in words, plots of losses and laws, tables; one HTML file."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_audio_jax.eval import page
from sam_audio_jax.files import whole_file, write_json
from sam_audio_jax.scaling.analysis import analyse
from sam_audio_jax.scaling.law import Law
from sam_audio_jax.scaling.measured import MeasuredLoss, StudyFolder
from sam_audio_jax.scaling.study import StudyConfig

HUES = (210, 28, 130, 345, 265, 50, 185, 310, 95)
WIDTH, HEIGHT, LEFT, TOP = 560, 300, 56, 10


def write_results(
    folder: StudyFolder, study: StudyConfig, rows: Sequence[MeasuredLoss]
) -> dict[str, Any]:
    """Writes what a table shows, as results and as a page; returns the results."""
    results = analyse(study, rows)
    write_json(folder.results_file, results)
    with whole_file(folder.report_file) as part:
        part.write_text(write_page(results, rows), encoding="utf-8")
    return results


def write_page(results: dict[str, Any], rows: Sequence[MeasuredLoss]) -> str:
    """The whole page."""
    body = ["<h1>Scaling study</h1>", f"<p>{html.escape(summary(results))}</p>"]
    usable = [row for row in rows if not row.diverged]
    if results["design"] == "rates":
        body.append(_rates(results["rates"]))
    else:
        for domain, found in results["losses"].items():
            body.append(_domain(domain, found, usable))
    if results["left_out"]:
        body.append("<h2>Left out</h2><ul>")
        body += [
            f"<li>{html.escape(name)}: {html.escape(reason)}</li>"
            for name, reason in results["left_out"].items()
        ]
        body.append("</ul>")
    body.append(_definitions(results["definitions"]) + _table(rows))
    return page.document("Scaling study", "".join(body))


def summary(results: dict[str, Any]) -> str:
    """What the study shows, in sentences."""
    if results["design"] == "rates":
        return " ".join(rate_lines(results["rates"])) or "No run is measured yet."
    found = results["losses"].get("all")
    if found is None:
        return "No run is measured yet."
    if "missing" in found:
        return f"No law is fitted yet: {found['missing']}."
    law, sure = found["law"], found["intervals"]
    text = (
        f"L(N, D) = {law['E']:.4g} + {law['A']:.4g} / N^{law['alpha']:.3f} + {law['B']:.4g} / "
        f"D^{law['beta']:.3f}, D in seconds, from {found['points']} losses of {found['runs']} "
        "runs; "
        + ", ".join(
            f"{name} {sure[name]['low']:.3g} to {sure[name]['high']:.3g}"
            for name in ("E", "alpha", "beta")
        )
        + " (90 %)."
    )
    if found["undetermined"]:
        text += " The losses do not fix this law: an exponent or a factor is at the edge."
    if found["outliers"]:
        text += f" {found['outliers']} losses are outliers."
    return f"{text} {held_out_line(found['held_out'])}"


def held_out_line(test: dict[str, Any]) -> str:
    """The test on the largest run in a sentence."""
    if "missing" in test:
        return f"The largest run cannot be held out: {test['missing']}."
    interval = test["predicted"]
    inside = "inside" if test["inside"] else "OUTSIDE"
    return (
        f"Held out, the largest run {test['run']} ({test['extrapolated']}) is predicted at "
        f"{interval['value']:.4f} ({interval['low']:.4f} to {interval['high']:.4f}) and has "
        f"{test['loss']:.4f}, {inside} the interval: an error of {test['error_of_spread']:.1%} of "
        f"the spread, where the second largest run's loss is off by "
        f"{test['naive_error_of_spread']:.1%}."
    )


def rate_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """The best rate of each width, and how far it moves."""
    lines = [
        f"width {one['width']}: best rate {one['best']:.3g} of {len(one['rates'])} ({one['seeds']} "
        f"seeds){'' if one['inside'] else ', AT THE END of the sweep'}."
        for one in found
    ]
    if len(found) > 1:
        best = [one["best"] for one in found]
        lines.append(f"From width to width the best rate moves by {max(best) / min(best):.2f}.")
    return lines


def forecast_lines(found: dict[str, Any]) -> list[str]:
    """Optima and forecasts, one line each."""
    lines = [
        f"{one['operations']:.3g} operations: N {_span(one['parameters'])}, {one['hours']:.4g} h, "
        f"loss {_span(one['loss'])}; {one['extrapolated']}"
        for one in found.get("optimum", ())
    ]
    lines += [
        f"width {one['width']} ({one['parameters']:.3g} parameters), {one['hours']:.4g} h, "
        f"{one['operations']:.3g} operations: loss {_span(one['loss'])}; {one['extrapolated']}"
        for one in found.get("forecasts", ())
    ]
    cut = found.get("parabolas", {})
    if cut.get("exponent") is not None:
        lines.append(
            f"IsoFLOP parabolas (biased, beside the law): N = {cut['factor']:.3g} C^"
            f"{cut['exponent']:.3f}, from {len(cut['minima'])} minima"
        )
    return lines


def _span(interval: dict[str, float]) -> str:
    return f"{interval['value']:.4g} ({interval['low']:.4g} to {interval['high']:.4g})"


def _domain(domain: str, found: dict[str, Any], rows: Sequence[MeasuredLoss]) -> str:
    """The section of one domain."""
    head = f"<h2>Loss, {html.escape(domain)}</h2>"
    if "missing" in found:
        return f"{head}<p>No law: {html.escape(found['missing'])}.</p>"
    law = Law(**found["law"])
    own = [row for row in rows if domain in row.losses]
    lines = [held_out_line(found["held_out"]), *forecast_lines(found)]
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    charts = _losses_chart(own, domain, law) + _fit_chart(own, domain, law)
    return f'{head}{text}<div class="charts">{charts}</div>'


def _losses_chart(rows: Sequence[MeasuredLoss], domain: str, law: Law) -> str:
    """Loss against data, a colour for each size, with the law as lines."""
    marks = []
    for number, n in enumerate(sorted({row.parameters for row in rows})):
        own = [row for row in rows if row.parameters == n]
        d = np.array([row.seconds / 3600 for row in own])
        line = np.geomspace(d.min(), d.max(), 30)
        marks.append(
            (f"{n:.3g}", number, d, [row.losses[domain] for row in own], line, law(n, 3600 * line))
        )
    return _chart("Loss over hours of training data; lines are the law", marks)


def _fit_chart(rows: Sequence[MeasuredLoss], domain: str, law: Law) -> str:
    """Measured against fitted loss."""
    losses = np.array([row.losses[domain] for row in rows])
    fitted = law(
        np.array([row.parameters for row in rows]), np.array([row.seconds for row in rows])
    )
    ends = np.array([losses.min(), losses.max()])
    return _chart("Measured over fitted loss", [("", 0, fitted, losses, ends, ends)])


def _chart(title: str, marks: Sequence[tuple[Any, ...]]) -> str:
    """Points and lines on two logarithmic axes, as SVG."""
    x = np.concatenate([np.concatenate([one[2], one[4]]) for one in marks])
    y = np.concatenate([np.concatenate([one[3], one[5]]) for one in marks])
    low_x, high_x, low_y, high_y = (_padded(x)[0], _padded(x)[1], *_padded(y))

    def across(value: float) -> float:
        share = math.log(value / low_x) / math.log(high_x / low_x)
        return round(LEFT + (WIDTH - LEFT - 10) * share, 1)

    def down(value: float) -> float:
        share = math.log(high_y / value) / math.log(high_y / low_y)
        return round(TOP + (HEIGHT - TOP - 34) * share, 1)

    bottom = HEIGHT - 34
    parts = [
        f'<path class="grid" d="M{LEFT} {down(t)}H{WIDTH - 10}"/>'
        f'<text x="{LEFT - 6}" y="{down(t) + 4}" text-anchor="end">{t:.3g}</text>'
        for t in _ticks(low_y, high_y)
    ]
    parts += [
        f'<text x="{across(t)}" y="{bottom + 18}" text-anchor="middle">{t:.3g}</text>'
        for t in _ticks(low_x, high_x)
    ]
    legend = []
    for name, number, *series in marks:
        colour = f"hsl({HUES[number % len(HUES)]} 65% 50%)"
        points = zip(series[0], series[1], strict=True)
        parts += [
            f'<circle cx="{across(a)}" cy="{down(b)}" r="3" fill="{colour}"/>' for a, b in points
        ]
        line = " ".join(f"{across(a)},{down(b)}" for a, b in zip(series[2], series[3], strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        if name:
            legend.append(f'<span style="color:{colour}">&#9679;</span>&nbsp;N&nbsp;=&nbsp;{name}')
    caption = html.escape(title) + ("<br>" + " &nbsp; ".join(legend) if legend else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _padded(values: np.ndarray) -> tuple[float, float]:
    """The range of positive values with a margin on a logarithmic axis."""
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.05, 1.001)
    return low / margin, high * margin


def _ticks(low: float, high: float) -> list[float]:
    """Five numbers that are evenly spread over a logarithmic axis, rounded to two digits."""
    spread = np.geomspace(low, high, 7)[1:-1]
    digits = 2 if high / low > 2 else 3
    return [float(f"{value:.{digits}g}") for value in spread]


def _rates(found: Sequence[dict[str, Any]]) -> str:
    """Loss against rate for each width."""
    marks = []
    for number, one in enumerate(found):
        curve = (np.array(one["rates"]), np.array(one["losses"]))
        marks.append((f"width {one['width']}", number, *curve, *curve))
    return (
        _chart("Loss over the rate", marks).replace("N&nbsp;=&nbsp;width", "width") if marks else ""
    )


def _definitions(definitions: dict[str, str]) -> str:
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td><td style='text-align:left;white-space:normal'>"
        f"{html.escape(text)}</td></tr>"
        for name, text in definitions.items()
    )
    return f'<h2>Definitions</h2><div class="wide"><table>{lines}</table></div>'


def _table(rows: Sequence[MeasuredLoss]) -> str:
    """Every row of the table."""
    heads = ("run", "N", "step", "D hours", "unique", "C", "rate", "loss", "")
    lines = []
    for row in rows:
        unique = "all" if row.unique_seconds is None else f"{row.unique_seconds / 3600:.3g}"
        cells = (
            row.run,
            f"{row.parameters:.4g}",
            str(row.step),
            f"{row.seconds / 3600:.3g}",
            unique,
            f"{row.operations:.3g}",
            f"{row.rate:.3g}",
            f"{row.losses.get('all', math.nan):.4f}",
            "diverged" if row.diverged else "",
        )
        lines.append([html.escape(cell) for cell in cells])
    return "<h2>Runs</h2>" + page.cells_table(heads, lines)
