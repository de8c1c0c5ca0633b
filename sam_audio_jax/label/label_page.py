"""The report of a folder of labels: what each filter drops, histograms, examples to listen to.

The thresholds are the usual ones of `data/label_scores.py`, of which a training may choose others.
"""

import collections
import dataclasses
import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_data_source
from jaxtyping import Float

from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data.label_scores import LABEL_SCORES
from sam_audio_jax.data.labels import SCORES, LabelledRecord, shard_path, unpack_label
from sam_audio_jax.data.records import SIGNALS
from sam_audio_jax.eval import page
from sam_audio_jax.eval.report import player
from sam_audio_jax.files import iter_jsonl, whole_file
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.call import Compiled

PAGE = "report.html"
BINS = 30
REASONS = 20  # kinds of reasons in the table
KEPT_EXAMPLES = 3
LONGEST_PLAYED_S = 10.0


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The scores of all labels of a folder, and the inputs without one."""

    inputs: int
    names: tuple[str, ...]  # of the scores that have a threshold
    values: Float[np.ndarray, "labels scores"]
    places: Sequence[tuple[int, int]]  # shard and record of each label
    reasons: Mapping[str, int]  # reason -> inputs

    @property
    def passes(self) -> np.ndarray:
        """Whether each label passes each filter at its usual threshold; `[labels, scores]`."""
        passes = np.zeros(self.values.shape, bool)
        for column, name in enumerate(self.names):
            passes[:, column] = [LABEL_SCORES[name].passes(v) for v in self.values[:, column]]
        return passes


def read_table(folder: pathlib.Path) -> LabelTable:
    """Reads `scores.jsonl`."""
    values, places, reasons = [], [], collections.Counter()
    inputs, names = 0, ()
    records: dict[int, int] = collections.Counter()
    for _, entry in iter_jsonl(folder / SCORES):
        inputs += 1
        if "scores" not in entry:
            reasons[entry["reason"]] += 1
            continue
        names = names or tuple(name for name in entry["scores"] if name in LABEL_SCORES)
        row = [entry["scores"][name] for name in names]
        values.append([math.nan if value is None else value for value in row])
        places.append((entry["shard"], records[entry["shard"]]))
        records[entry["shard"]] += 1
    rows = np.array(values, float).reshape(len(values), len(names))
    return LabelTable(inputs, names, rows, places, dict(reasons.most_common()))


def write_page(folder: pathlib.Path, index: Mapping[str, Any], model: SAMAudio) -> None:
    """Writes `report.html`, which needs no other file."""
    table = read_table(folder)
    body = _head(table, index) + _filters(table) + _histograms(table) + _reasons(table)
    body += _examples(folder, table, model)
    settings = html.escape(json.dumps(dict(index), indent=1))
    body += f"<h2>Settings</h2><pre>{settings}</pre>"
    with whole_file(folder / PAGE) as part:
        part.write_text(page.document("Pseudo-labels", body), encoding="utf-8")


def _head(table: LabelTable, index: Mapping[str, Any]) -> str:
    labels, kept = len(table.places), int(table.passes.all(axis=1).sum())
    tiles = {
        "inputs": (table.inputs, "lines of the manifest"),
        "labels": (labels, f"{table.inputs - labels} inputs have none"),
        "pass every filter": (kept, f"{100 * kept / max(labels, 1):.1f} % of the labels"),
    }
    cells = "".join(
        f'<div class="tile">{name}<b>{count}</b><span class="soft">{note}</span></div>'
        for name, (count, note) in tiles.items()
    )
    return (
        f'<h1>Pseudo-labels</h1><p class="soft">by {html.escape(index["checkpoint"])}, prompted by '
        f'{html.escape(index["settings"]["prompts"])}</p><div class="tiles">{cells}</div>'
    )


def _filters(table: LabelTable) -> str:
    """What each filter drops, and what no other one would."""
    heads = ("filter", "keeps", "drops", "drops alone", "5 %", "median", "95 %")
    passes, rows = table.passes, []
    for column, name in enumerate(table.names):
        score = LABEL_SCORES[name]
        others = np.delete(passes, column, axis=1).all(axis=1)
        dropped = ~passes[:, column]
        finite = table.values[np.isfinite(table.values[:, column]), column]
        spread = np.percentile(finite, (5, 50, 95)) if finite.size else [math.nan] * 3
        share = f"{100 * dropped.mean():.1f} %" if len(dropped) else "&ndash;"
        source = "published" if score.published else "ours"
        cells = [
            f"{name}<small>{html.escape(score.meaning)}</small>",
            f"{score.keep} {score.threshold:g}<small>{source}</small>",
            f"{int(dropped.sum())}<small>{share}</small>",
            str(int((dropped & others).sum())),
            *(f"{value:.2f}" for value in spread),
        ]
        rows.append(cells)
    return "<h2>Filters</h2>" + page.cells_table(heads, rows)


def _reasons(table: LabelTable) -> str:
    if not table.reasons:
        return ""
    pairs = list(table.reasons.items())
    rows = [(html.escape(kind), str(count)) for kind, count in pairs[:REASONS]]
    return "<h2>Inputs without a label</h2>" + page.cells_table(("reason", "inputs"), rows)


def _histograms(table: LabelTable) -> str:
    figures = [
        histogram(name, table.values[:, column], LABEL_SCORES[name].threshold)
        for column, name in enumerate(table.names)
    ]
    return f'<h2>Scores</h2><div class="charts">{"".join(figures)}</div>'


def histogram(title: str, values: Float[np.ndarray, " values"], threshold: float) -> str:
    """Bars of how many values there are, as SVG, and a line at the threshold."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return f"<figure><figcaption>{html.escape(title)}: no values</figcaption></figure>"
    low, high = min(finite.min(), threshold), max(finite.max(), threshold)
    marks = page.ticks(float(low), float(high))
    counts, edges = np.histogram(finite, BINS, (marks[0], marks[-1]))
    left, top, width, height = 8, 8, 400, 120
    scale = height / counts.max()

    def across(value: float) -> float:
        return round(left + width * (value - marks[0]) / (marks[-1] - marks[0]), 1)

    bars = "".join(
        f'<rect x="{across(edge)}" y="{top + height - count * scale:.1f}" '
        f'width="{width / BINS - 1:.1f}" height="{count * scale:.1f}" fill="var(--accent)"/>'
        for edge, count in zip(edges[:-1], counts, strict=True)
    )
    labels = "".join(
        f'<text x="{across(mark)}" y="{top + height + 16}" text-anchor="middle">{mark:g}</text>'
        for mark in marks
    )
    line = f'<path d="M{across(threshold)} {top}v{height}" stroke="var(--ink)" stroke-width="2"/>'
    name = html.escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {width + 2 * left} {top + height + 24}" role="img" aria-label="{name}">'
        f"{bars}{line}{labels}</svg></figure>"
    )


def _examples(folder: pathlib.Path, table: LabelTable, model: SAMAudio) -> str:
    """Labels that pass everything, and of each filter the one that it drops most clearly."""
    if not table.places:
        return ""
    passes, chosen = table.passes, {}
    for row in np.flatnonzero(passes.all(axis=1))[:KEPT_EXAMPLES]:
        chosen[int(row)] = "passes every filter"
    for column, name in enumerate(table.names):
        sign = 1 if LABEL_SCORES[name].keep == "above" else -1
        values = np.where(np.isfinite(table.values[:, column]), table.values[:, column], sign * 1e9)
        worst = int(np.argmin(sign * values))
        if not passes[worst, column]:
            chosen.setdefault(worst, f"dropped by {name}")
    labels = [_read_label(folder, *table.places[row]) for row in chosen]
    sounds = _decode(model, labels)
    scenes = [
        _scene(label, note, waves, model.sample_rate)
        for label, note, waves in zip(labels, chosen.values(), sounds, strict=True)
    ]
    return "<h2>Listen</h2><p>Decoded from the latents that a training reads.</p>" + "".join(scenes)


def _read_label(folder: pathlib.Path, shard: int, record: int) -> LabelledRecord:
    source = array_record_data_source.ArrayRecordDataSource([str(shard_path(folder, shard))])
    return unpack_label(source[record])


def _decode(
    model: SAMAudio, labels: Sequence[LabelledRecord]
) -> list[Float[np.ndarray, "signals _"]]:
    """The sound of mixture, target and residual of each label, by one program."""
    codec = model.codec.config
    most = max(1, round(LONGEST_PLAYED_S * codec.sample_rate / codec.hop))
    frames = min(max(len(label.mixture) for label in labels), most)
    compiled, sounds = Compiled(model.codec), []
    for label in labels:
        latents = np.zeros((len(SIGNALS), frames, codec.codebook_dim), np.float32)
        for row, name in zip(latents, SIGNALS, strict=True):
            cut = getattr(label, name)[:frames]
            row[: len(cut)] = cut
        waves = np.asarray(compiled(Codec.decode, latents))
        sounds.append(waves[:, : len(label.mixture) * codec.hop])
    return sounds


def _scene(
    label: LabelledRecord, note: str, waves: Float[np.ndarray, "signals _"], rate: int
) -> str:
    players = "".join(player(name, wave, rate) for name, wave in zip(SIGNALS, waves, strict=True))
    scores = ", ".join(
        f"{name} {value:.2f}" for name, value in label.scores.items() if value is not None
    )
    text = html.escape(label.prompt["text"] or ", ".join(label.target_texts))
    return (
        f'<div class="scene"><h3>“{text}” <span class="soft">{html.escape(note)}</span></h3>'
        f'<span class="soft">{html.escape(label.id)}: {html.escape(scores)}</span>'
        f'<div class="players">{players}</div></div>'
    )
