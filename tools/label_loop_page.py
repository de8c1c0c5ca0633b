"""The report of the closed loop: the arms beside each other, and the quality of every filter."""

import collections
import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax.data import span_prompts
from sam_audio_jax.data.label_scores import LABEL_SCORES, failing
from sam_audio_jax.data.labels import SCORES
from sam_audio_jax.eval import page
from sam_audio_jax.eval.agreement import srcc
from sam_audio_jax.eval.statistics import LEVEL, RESAMPLES, Interval, bootstrap
from sam_audio_jax.files import read_jsonl, read_object, whole_file, write_json
from sam_audio_jax.label.filter_quality import auc_interval

PAGE, RESULTS = "report.html", "results.json"
PROMPTS = ("text", "text+span")  # of the evaluations
COLUMNS = {
    "sisdri": "SI-SDR improvement of held-out targets, dB",
    "judge_overall": "Overall score of the judge",
}
# What a filter may be asked to find, by the column and its least dB. A label that is far better
# than its mixture is mostly of a faint target, and still bad: the first is what training needs.
KINDS = {
    "good": ("true_sisdr", 5.0, "SI-SDR with the true target of 5 dB or more"),
    "better": ("true_sisdri", 3.0, "3 dB or more better than the mixture"),
    "harmless": ("true_sisdri", -3.0, "less than 3 dB worse than the mixture"),
}
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


def run_scores(folder: pathlib.Path, row: str, column: str) -> dict[str, float]:
    """One column of each held-out mixture of one evaluation, for one kind of prompt."""
    items = read_object(folder / RESULTS)["items"]
    found = {item["id"]: item.get(column) for item in items if item["row"] == row}
    return {name: math.nan if value is None else value for name, value in found.items()}


def arm_scores(
    out: pathlib.Path, arm: str, seeds: int, row: str, column: str
) -> Float[np.ndarray, "seeds mixtures"]:
    """One column of an arm: of every seed and held-out mixture."""
    runs = [run_scores(out / "eval" / f"{arm}-{seed}", row, column) for seed in range(seeds)]
    return np.array([[one[name] for name in runs[0]] for one in runs], np.float64)


def crossed_interval(
    values: Float[np.ndarray, "seeds mixtures"], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """The mean with its percentile interval, where seeds and mixtures are resampled, both.

    None without a finite value. One seed says nothing about how seeds differ.
    """
    if not np.isfinite(values).any():
        return None
    rng = np.random.default_rng(seed)
    runs, items = values.shape
    rows = rng.integers(0, runs, (resamples, runs))
    columns = rng.integers(0, items, (resamples, items))
    means = [
        np.nanmean(values[row[:, None], column]) for row, column in zip(rows, columns, strict=True)
    ]
    outside = (1 - LEVEL) / 2
    low, high = np.nanquantile(means, [outside, 1 - outside])
    return Interval(float(np.nanmean(values)), float(low), float(high), items)


def arm_means(
    out: pathlib.Path, arms: Sequence[str], seeds: int, row: str, column: str
) -> dict[str, tuple[Interval | None, Interval | None]]:
    """Of each arm the mean of a column, and its difference to the first half alone.

    The difference is of pairs of the same mixture and the same seed.
    """
    scores = {arm: arm_scores(out, arm, seeds, row, column) for arm in arms}
    return {
        arm: (crossed_interval(values), crossed_interval(values - scores["half"]))
        for arm, values in scores.items()
    }


def label_kinds(labels: Sequence[Mapping[str, Any]]) -> dict[str, Bool[np.ndarray, " labels"]]:
    """Which labels are of each of `KINDS`, by their scores."""
    return {
        kind: np.array([one[column] for one in labels], np.float64) > least
        for kind, (column, least, _) in KINDS.items()
    }


def filter_quality(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each score the AUC of every kind of label, and its rank correlation with the truth."""
    labels = [entry["scores"] for entry in entries if "scores" in entry]
    truth, kinds = np.array([one["true_sisdri"] for one in labels]), label_kinds(labels)
    found = {}
    for name in labels[0]:
        if name not in LABEL_SCORES:
            continue
        sign = 1 if LABEL_SCORES[name].keep == "above" else -1
        values = sign * np.array([one[name] for one in labels], np.float64)
        intervals = {
            kind: auc_interval(values.tolist(), which.tolist()) for kind, which in kinds.items()
        }
        correlation = float(srcc(values, truth))
        passing = [not failing(one, {name: LABEL_SCORES[name].threshold}, name) for one in labels]
        found[name] = {
            "auc": {kind: one and one.as_dict() for kind, one in intervals.items()},
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
    scores = [entry["scores"] for entry in labels]
    truth = np.array([one["true_sisdri"] for one in scores])
    thresholds = {name: LABEL_SCORES[name].threshold for name in options["filters"]}
    kept = np.array([not failing(one["scores"], thresholds, one["id"]) for one in labels])
    rows = [f"model/{refine}/{prompt}" for refine in ("wiener", "none") for prompt in PROMPTS]
    tables = {
        column: {row: arm_means(out, arms, seeds, row, column) for row in rows}
        for column in COLUMNS
    }
    results = {
        "options": {name: str(value) for name, value in options.items()},
        "labels": len(labels),
        "kinds": {kind: int(which.sum()) for kind, which in label_kinds(scores).items()},
        "kept": int(kept.sum()),
        "true_sisdri": {"all": _mean(truth), "kept": _mean(truth[kept])},
        "filters": filter_quality(entries),
        "arms": {
            column: {row: _table_json(out, column, row, table) for row, table in rows.items()}
            for column, rows in tables.items()
        },
    }
    write_json(out / RESULTS, results)
    body = _head(results) + "".join(_arms(column, rows, out) for column, rows in tables.items())
    body += _filters(results["filters"])
    settings = json.dumps(results["options"], indent=2)
    body += f"<h2>Settings</h2><pre>{html.escape(settings)}</pre>"
    with whole_file(out / PAGE) as part:
        part.write_text(page.document("Pseudo-labels: the closed loop", body), encoding="utf-8")
    return results


def _table_json(
    out: pathlib.Path, column: str, row: str, table: Mapping[str, tuple]
) -> dict[str, Any]:
    """The cells of one row of prompts as JSON, with the means of the single seeds."""
    found = {}
    for arm, (mean, difference) in table.items():
        runs = sorted((out / "eval").glob(f"{arm}-[0-9]*"))
        scores = [np.array(list(run_scores(run, row, column).values())) for run in runs]
        found[arm] = {
            "mean": mean and mean.as_dict(),
            "difference": difference and difference.as_dict(),
            "seeds": [_mean(one[np.isfinite(one)]) for one in scores],
        }
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _head(results: Mapping[str, Any]) -> str:
    mean = results["true_sisdri"]
    numbers = [
        f"{mean[name]:.1f} dB" if mean[name] is not None else "-" for name in ("all", "kept")
    ]
    counts = results["kinds"]
    kinds = ", ".join(f"{counts[kind]} are {kind} ({words})" for kind, (*_, words) in KINDS.items())
    return (
        "<h1>Pseudo-labels: the closed loop</h1>"
        f"<p>{results['labels']} labels, {results['kept']} pass the filters. Of all, {kinds}. "
        f"SI-SDR improvement of the labels: {numbers[0]}, of those that pass {numbers[1]}. Stems "
        "as generated are not right in phase: without --refine wiener these numbers say little.</p>"
    )


def _arms(column: str, tables: Mapping[str, Mapping[str, tuple]], out: pathlib.Path) -> str:
    """One table for each refinement: arms by prompts, with the difference to the half alone.

    Nothing for a column that was not measured.
    """
    parts = []
    for refine, title in (("wiener", "refined"), ("none", "as generated")):
        rows = [row for row in tables if row.split("/")[1] == refine]
        if all(tables[row]["half"][0] is None for row in rows):
            continue
        heads, groups = {}, collections.defaultdict(dict)
        for row in rows:
            prompt = row.split("/")[2]
            heads |= {prompt: "mean", f"{prompt}, change": "against the half"}
        for arm in next(iter(tables.values())):
            groups["Arms"][NAMES[arm]] = [cell for row in rows for cell in tables[row][arm]]
        start = [run_scores(out / "eval" / "start", row, column) for row in rows]
        cells = [bootstrap(list(one.values())) for one in start]
        groups["Before"][NAMES["start"]] = [x for cell in cells for x in (cell, None)]
        parts.append(f"<h2>{COLUMNS[column]}, {title}</h2>{page.table(heads, groups)}")
    return "".join(parts)


def _filters(filters: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, found in filters.items():
        areas = [_area(found["auc"][kind]) for kind in KINDS]
        numbers = [
            "&ndash;" if found[key] is None else page.formatted(found[key], 2)
            for key in ("srcc", "kept_sisdri")
        ]
        rows.append((name, *areas, numbers[0], str(found["kept"]), numbers[1]))
    heads = [f"AUC, {kind}" for kind in KINDS]
    return (
        "<h2>Filters</h2><p>The AUC is the probability that a label of a kind has a better score "
        "than one that is not; 0.5 is chance. The correlation is Spearman's, with the true SI-SDR "
        "improvement.</p>"
        f"{page.cells_table(('score', *heads, 'rank correlation', 'kept', 'dB of the kept'), rows)}"
    )


def _area(interval: Mapping[str, float] | None) -> str:
    if not interval:
        return "&ndash;"
    low, high = interval["low"], interval["high"]
    return f"{interval['mean']:.2f}<small>{low:.2f} to {high:.2f}</small>"
