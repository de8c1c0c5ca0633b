"""The page of a study: what it shows in words, plots of losses and laws, tables; one HTML file."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_audio_jax.eval import page
from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.files import whole_file, write_json
from sam_audio_jax.scaling.analysis import analyse, as_score
from sam_audio_jax.scaling.charts import Series, chart
from sam_audio_jax.scaling.law import Law
from sam_audio_jax.scaling.measured import JUDGE, SISDRI, MeasuredLoss, StudyFolder
from sam_audio_jax.scaling.rates import rate_lines
from sam_audio_jax.scaling.study import StudyConfig

FEW_RUNS = 4  # below, intervals of 90 % hold alpha in 77 of 100 studies: docs/scaling.md
TITLES = {
    SISDRI: "SI-SDR improvement, dB",
    JUDGE: "Judge of the target, overall, 1 to 5",
}


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
    body = ["<h1>Scaling study</h1>"]
    body += [f"<p>{html.escape(line)}</p>" for line in summary_lines(results)]
    usable = [row for row in rows if not row.diverged]
    if results["design"] == "rates":
        body.append(_rates(results["rates"]))
    else:
        for domain, found in results["losses"].items():
            body.append(_domain(domain, found, usable))
        body.append(_scores(results["scores"], usable))
    if results["left_out"]:
        body.append("<h2>Left out</h2><ul>")
        body += [
            f"<li>{html.escape(name)}: {html.escape(reason)}</li>"
            for name, reason in results["left_out"].items()
        ]
        body.append("</ul>")
    body.append(_definitions(results["definitions"]) + _table(rows))
    return page.document("Scaling study", "".join(body))


def summary_lines(results: dict[str, Any]) -> list[str]:
    """What the study shows, a line for each thing that it shows."""
    if results["design"] == "rates":
        return rate_lines(results["rates"]) or ["No run is measured yet."]
    found = results["losses"].get("all")
    if found is None:
        return ["No run is measured yet."]
    if "missing" in found:
        return [f"No law is fitted yet: {found['missing']}."]
    lines = law_lines(found)
    return lines + [
        score_line(name, one) for name, one in results["scores"].items() if is_whole(name)
    ]


def is_whole(name: str) -> bool:
    """Whether a score is the mean over all domains."""
    return name.split("/")[1] == ALL


def law_lines(found: dict[str, Any]) -> list[str]:
    """A law, its tests, and whether it holds without the smallest amount of data."""
    test = found["held_out"]
    least = without_least_line(found["without_least_data"])
    lines = [law_line(found), held_out_line(test), equal_data_line(test), least]
    return [line for line in lines if line]


def law_line(found: dict[str, Any], name: str = "L") -> str:
    """A law with its intervals in a sentence."""
    law, sure = found["law"], found["intervals"]
    text = (
        f"{name}(N, D) = {law['E']:.4g} + {law['A']:.4g} / N^{law['alpha']:.3f} + {law['B']:.4g} / "
        f"D^{law['beta']:.3f}, D in seconds, from {found['points']} measurements of "
        f"{found['runs']} runs; "
        + ", ".join(
            f"{name} {sure[name]['low']:.3g} to {sure[name]['high']:.3g}"
            for name in ("E", "alpha", "beta")
        )
        + " (90 %)."
    )
    if found["runs"] < FEW_RUNS:
        text += f" Of {found['runs']} runs the interval of alpha is too narrow: take 4 or more."
    if found["undetermined"]:
        text += " The measurements do not fix this law: an exponent or a factor is at the edge."
    if found["outliers"]:
        text += f" {found['outliers']} of them are outliers."
    return text


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


def equal_data_line(test: dict[str, Any]) -> str:
    """The same test at each amount of data; empty where it cannot be made."""
    tests = test.get("equal_data")
    if not tests:
        return ""
    closer = sum(one["error_of_spread"] < one["naive_error_of_spread"] for one in tests)
    each = "; ".join(
        f"{one['hours']:.3g} h {one['error_of_spread']:.1%}"
        f"{'' if one['inside'] else ' and OUTSIDE the interval'} "
        f"({one['naive_error_of_spread']:.1%})"
        for one in tests
    )
    return (
        "At equal data the prediction of the largest size is off, as a share of the spread between "
        f"sizes there, by (in brackets: the second largest size's loss): {each}. It is closer than "
        f"the second largest size at {closer} of {len(tests)} amounts."
    )


def without_least_line(found: dict[str, Any]) -> str:
    """What the law is without the smallest amount of data."""
    if "missing" in found:
        return f"Without the smallest amount of data no law can be fitted: {found['missing']}."
    law = found["law"]
    moved = f"{', '.join(found['moved'])} outside" if found["moved"] else "all inside"
    return (
        f"Without the losses after {found['hours']:.3g} h: E {law['E']:.4g}, alpha "
        f"{law['alpha']:.3f}, beta {law['beta']:.3f}, {moved} the intervals above. "
        f"{held_out_line(found['held_out'])}"
    )


def score_line(name: str, found: dict[str, Any]) -> str:
    """What a score does with the size, and whether it has a law."""
    kind, domain, prompt = name.split("/")
    text = f"{TITLES[kind]}, {domain}, by {prompt}: "
    text += "; ".join(
        f"{one['per_doubling']:+.3g} ({one['low']:+.3g} to {one['high']:+.3g}) with each doubling "
        f"of N at {one['hours']:.3g} h, {one['runs']} runs"
        for one in found["by_size"]
    )
    if "missing" in found:
        return f"{text}{'. ' if found['by_size'] else ''}No law is fitted: {found['missing']}."
    return f"{text}. As a loss: {law_line(found, 'S')}"


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
    lines = [*law_lines(found), *forecast_lines(found)]
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    charts = _losses_chart(own, domain, law) + _fit_chart(own, domain, law)
    return f'{head}{text}<div class="charts">{charts}</div>'


def _losses_chart(rows: Sequence[MeasuredLoss], domain: str, law: Law) -> str:
    """Loss against data, a colour for each size, with the law as lines."""
    series = []
    for number, n in enumerate(sorted({row.parameters for row in rows})):
        own = [row for row in rows if row.parameters == n]
        d = np.array([row.seconds / 3600 for row in own])
        line = np.geomspace(d.min(), d.max(), 30)
        losses = [row.losses[domain] for row in own]
        series.append(
            Series(f"N = {n:.3g}", number, d, losses, line, np.asarray(law(n, 3600 * line)))
        )
    return chart("Loss over hours of training data; lines are the law", series)


def _fit_chart(rows: Sequence[MeasuredLoss], domain: str, law: Law) -> str:
    """Measured against fitted loss."""
    losses = np.array([row.losses[domain] for row in rows])
    n, d = ([getattr(row, name) for row in rows] for name in ("parameters", "seconds"))
    fitted = np.asarray(law(np.array(n), np.array(d)))
    ends = [losses.min(), losses.max()]
    return chart("Measured over fitted loss", [Series("", 0, fitted, losses, ends, ends)])


def _scores(found: dict[str, Any], rows: Sequence[MeasuredLoss]) -> str:
    """The section of the scores: of each domain and kind of prompt a sentence and its charts."""
    if not found:
        return ""
    body = ["<h2>Scores</h2>"]
    for name, one in found.items():
        own = [row for row in rows if name in row.scores]
        charts = _score_by_size(name, one, own)
        if len({row.seconds for row in own}) > 1:
            charts += _score_by_data(name, one, own)
        text = html.escape(score_line(name, one))
        body.append(f'<p>{text}</p><div class="charts">{charts}</div>')
    return "".join(body)


def _score_title(name: str, over: str) -> str:
    kind, domain, prompt = name.split("/")
    return f"{TITLES[kind]}: {domain}, by {prompt}, over {over}"


def _score_by_size(name: str, found: dict[str, Any], rows: Sequence[MeasuredLoss]) -> str:
    """A score against N, a colour for each amount of data; its law, else the line in log N."""
    series = []
    lines = {one["hours"]: one for one in found["by_size"]}
    for number, seconds in enumerate(sorted({row.seconds for row in rows})):
        own = [row for row in rows if row.seconds == seconds]
        n = np.array([row.parameters for row in own], np.float64)
        grid, values = np.geomspace(n.min(), n.max(), 30), np.array([])
        if "law" in found:
            values = np.asarray(as_score(name, Law(**found["law"])(grid, seconds)))
        elif line := lines.get(seconds / 3600):
            values = line["at_one"] + line["per_doubling"] * np.log2(grid)
        scores = [row.scores[name] for row in own]
        legend = f"{seconds / 3600:.3g} h"
        series.append(Series(legend, number, n, scores, grid[: len(values)], values))
    return chart(_score_title(name, "N"), series, logarithmic=False)


def _score_by_data(name: str, found: dict[str, Any], rows: Sequence[MeasuredLoss]) -> str:
    """A score against D, a colour for each size, with its law if there is one."""
    series = []
    for number, n in enumerate(sorted({row.parameters for row in rows})):
        own = [row for row in rows if row.parameters == n]
        hours = np.array([row.seconds / 3600 for row in own])
        grid, values = np.geomspace(hours.min(), hours.max(), 30), np.array([])
        if "law" in found:
            values = np.asarray(as_score(name, Law(**found["law"])(n, 3600 * grid)))
        scores = [row.scores[name] for row in own]
        series.append(Series(f"N = {n:.3g}", number, hours, scores, grid[: len(values)], values))
    title = _score_title(name, "hours of training data")
    return chart(title, series, logarithmic=False)


def _rates(found: Sequence[dict[str, Any]]) -> str:
    """Loss against rate for each width, and the table of it."""
    if not found:
        return ""
    series = [
        Series(f"width {one['width']}", number, *(2 * (one["rates"], one["losses"])))
        for number, one in enumerate(found)
    ]
    rates = sorted({rate for one in found for rate in one["rates"]})
    lines = []
    for one in found:
        measured = zip(one["losses"], one["spreads"], strict=True)
        of = {
            rate: f"{loss:.4f} ({'1 seed' if spread is None else f'{spread:.4f}'})"
            for rate, (loss, spread) in zip(one["rates"], measured, strict=True)
        }
        cells = [of.get(rate, "") for rate in rates]
        lines.append([f"width {one['width']}", *cells])
    table = page.cells_table(("", *(f"{rate:g}" for rate in rates)), lines)
    return (
        f'<div class="charts">{chart("Loss over the rate", series)}</div>'
        "<h2>Losses by rate</h2><p>Means of the seeds, in brackets highest less lowest.</p>"
        f"{table}"
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
