"""The report of the closed loop: the arms beside each other, and the quality of every filter."""

import collections
import html
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from sam_audio_jax.data import span_prompts
from sam_audio_jax.data.label_scores import LABEL_SCORES, failing
from sam_audio_jax.data.labels import SCORES
from sam_audio_jax.eval import page
from sam_audio_jax.eval.agreement import srcc
from sam_audio_jax.eval.statistics import Interval, bootstrap
from sam_audio_jax.files import read_jsonl, read_object, whole_file, write_json
from sam_audio_jax.label.filter_quality import auc_interval

PAGE, RESULTS = "report.html", "results.json"
GOOD_DB = 3.0  # a label is good if it is so much closer to the true target than the mixture is
NAMES = {
    "start": "start: before the further updates",
    "half": "first half alone",
    "all": "+ all pseudo-labels",
    "filtered": "+ those that pass the filters",
    "random": "+ as many random ones",
    "true": "+ true stems of the same mixtures",
}


def spans_of(active: Bool[np.ndarray, " frames"], frame_rate: float) -> list[list[float]]:
    """Start and end, in seconds, of the stretches in which a sound is active."""
    spans = span_prompts.positive(active, frame_rate)
    return [[round(start, 3), round(end, 3)] for _, start, end in spans]


def item_scores(folder: pathlib.Path, row: str) -> dict[str, float]:
    """SI-SDR improvement of each held-out mixture of one evaluation, for one kind of prompt."""
    items = read_object(folder / RESULTS)["items"]
    found = {item["id"]: item.get("sisdri") for item in items if item["row"] == row}
    return {name: math.nan if value is None else value for name, value in found.items()}


def arm_means(
    out: pathlib.Path, arms: Sequence[str], seeds: int, row: str
) -> dict[str, tuple[Interval | None, Interval | None]]:
    """Of each arm the mean SI-SDR improvement, and its difference to the first half alone.

    A mixture counts with its mean over the seeds, and mixtures are resampled; the difference is of
    pairs of the same mixture.
    """
    per_arm = {}
    for arm in arms:
        runs = [item_scores(out / "eval" / f"{arm}-{seed}", row) for seed in range(seeds)]
        per_arm[arm] = {name: np.mean([one[name] for one in runs]) for name in runs[0]}
    base = per_arm["half"]
    found = {}
    for arm, means in per_arm.items():
        differences = [means[name] - base[name] for name in base]
        found[arm] = bootstrap(list(means.values())), bootstrap(differences)
    return found


def seed_spread(out: pathlib.Path, arm: str, seeds: int, row: str) -> list[float]:
    """The mean SI-SDR improvement of each seed of an arm."""
    runs = [item_scores(out / "eval" / f"{arm}-{seed}", row) for seed in range(seeds)]
    return [float(np.nanmean(list(one.values()))) for one in runs]


def filter_quality(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each score the AUC of "this label is good", and its rank correlation with the truth."""
    labels = [entry["scores"] for entry in entries if "scores" in entry]
    truth = np.array([one["true_sisdri"] for one in labels])
    found = {}
    for name in labels[0]:
        if name not in LABEL_SCORES:
            continue
        sign = 1 if LABEL_SCORES[name].keep == "above" else -1
        values = sign * np.array([one[name] for one in labels], np.float64)
        interval = auc_interval(values.tolist(), (truth > GOOD_DB).tolist())
        correlation = float(srcc(values, truth))
        passing = [not failing(one, {name: LABEL_SCORES[name].threshold}, name) for one in labels]
        found[name] = {
            "auc": interval and interval.as_dict(),
            "srcc": None if math.isnan(correlation) else correlation,
            "kept": int(np.sum(passing)),
            "kept_sisdri": float(truth[passing].mean()) if any(passing) else None,
        }
    return found


def write(
    out: pathlib.Path, options: Mapping[str, Any], arms: Sequence[str], seeds: int
) -> dict[str, Any]:
    """Writes results.json and report.html; returns the results."""
    entries = read_jsonl(out / "labels" / SCORES)
    labels = [entry for entry in entries if "scores" in entry]
    truth = np.array([entry["scores"]["true_sisdri"] for entry in labels])
    thresholds = {name: LABEL_SCORES[name].threshold for name in options["filters"]}
    kept = np.array([not failing(one["scores"], thresholds, one["id"]) for one in labels])
    rows = [
        f"model/{refine}/{prompt}"
        for refine in ("wiener", "none")
        for prompt in ("text", "span", "text+span")
    ]
    tables = {row: arm_means(out, arms, seeds, row) for row in rows}
    results = {
        "options": {name: str(value) for name, value in options.items()},
        "labels": len(labels),
        "good": int((truth > GOOD_DB).sum()),
        "kept": int(kept.sum()),
        "true_sisdri": {"all": _mean(truth), "kept": _mean(truth[kept])},
        "filters": filter_quality(entries),
        "arms": {
            row: {
                arm: {
                    "mean": mean and mean.as_dict(),
                    "difference": difference and difference.as_dict(),
                    "seeds": seed_spread(out, arm, seeds, row),
                }
                for arm, (mean, difference) in table.items()
            }
            for row, table in tables.items()
        },
    }
    write_json(out / RESULTS, results)
    body = _head(results) + _arms(tables, out) + _filters(results["filters"])
    body += f"<h2>Settings</h2><pre>{html.escape(str(results['options']))}</pre>"
    with whole_file(out / PAGE) as part:
        part.write_text(page.document("Pseudo-labels: the closed loop", body), encoding="utf-8")
    return results


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _head(results: Mapping[str, Any]) -> str:
    mean = results["true_sisdri"]
    numbers = [
        f"{mean[name]:.1f} dB" if mean[name] is not None else "-" for name in ("all", "kept")
    ]
    return (
        "<h1>Pseudo-labels: the closed loop</h1>"
        f"<p>{results['labels']} labels, {results['good']} of them good (at least {GOOD_DB:g} dB "
        f"closer to the true target than the mixture is); {results['kept']} pass the filters. "
        f"SI-SDR improvement of the labels: {numbers[0]}, of those that pass {numbers[1]}.</p>"
    )


def _arms(tables: Mapping[str, Mapping[str, tuple]], out: pathlib.Path) -> str:
    """One table for each refinement: arms by prompts, with the difference to the half alone."""
    parts = []
    for refine, title in (("wiener", "refined"), ("none", "as generated")):
        prompts = [row for row in tables if row.split("/")[1] == refine]
        heads, groups = {}, collections.defaultdict(dict)
        for row in prompts:
            heads |= {row.split("/")[2]: "mean", f"{row.split('/')[2]}, change": "against the half"}
        for arm in next(iter(tables.values())):
            cells = [cell for row in prompts for cell in tables[row][arm]]
            groups["Arms"][NAMES[arm]] = cells
        start = [_start_cell(out, row) for row in prompts]
        groups["Before"][NAMES["start"]] = [cell for one in start for cell in (one, None)]
        parts.append(
            f"<h2>SI-SDR improvement of held-out targets, dB, {title}</h2>"
            + page.table(heads, groups)
        )
    return "".join(parts)


def _start_cell(out: pathlib.Path, row: str) -> Interval | None:
    return bootstrap(list(item_scores(out / "eval" / "start", row).values()))


def _filters(filters: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, found in filters.items():
        interval = found["auc"]
        area = "&ndash;"
        if interval:
            area = f"{interval['mean']:.2f}<small>{interval['low']:.2f} to {interval['high']:.2f}"
            area += "</small>"
        numbers = [
            "&ndash;" if found[key] is None else f"{found[key]:.2f}"
            for key in ("srcc", "kept_sisdri")
        ]
        cells = (name, area, numbers[0], str(found["kept"]), numbers[1])
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("score", "AUC of a good label", "rank correlation", "kept", "dB of the kept")
    first = "".join(f"<th>{head}</th>" for head in heads)
    return (
        "<h2>Filters</h2><p>The AUC is the probability that a good label has a better score than a "
        "bad one; 0.5 is chance. The correlation is Spearman's, with the true SI-SDR improvement."
        f'</p><div class="wide"><table><thead><tr>{first}</tr></thead><tbody>{"".join(rows)}'
        "</tbody></table></div>"
    )
