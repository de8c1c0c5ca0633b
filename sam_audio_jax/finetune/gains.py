"""What a fine-tuning changed: scores on held-out mixtures before and after, item by item."""

import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.eval import page
from sam_audio_jax.eval.compare import Key, read_scored
from sam_audio_jax.eval.prompting import PROMPTS
from sam_audio_jax.eval.statistics import ALL, Interval, bootstrap, counted, interval_text
from sam_audio_jax.eval.suite import REFINES
from sam_audio_jax.eval.titles import score_title

COLUMNS = ("sisdri", "sisdri_residual", "logmel")
# What both evaluations must agree in, so that only the weights differ.
SAME = ("method", "steps", "grid", "refine", "level_db")
REFINED = {"none": "as generated", "wiener": "refined"}


@dataclasses.dataclass(frozen=True)
class Gain:
    """One score over the mixtures of a setting, before and after; of their pairs the difference."""

    column: str
    refine: str
    prompt: str
    setting: str
    before: Interval
    after: Interval
    difference: Interval

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


def measured_gains(before: pathlib.Path, after: pathlib.Path) -> list[Gain]:
    """The gains between two evaluations of one bench.

    Raises `UserError` where one is damaged, and where the two were separated in different ways.
    """
    first, second = read_scored(before), read_scored(after)
    for name in SAME:
        values = [one.settings.get(name) for one in (first, second)]
        if values[0] != values[1]:
            raise UserError(
                f"{before} and {after} differ in {name} ({shown(values[0])} and "
                f"{shown(values[1])}), not in weights alone: measure one of them again"
            )
    found = []
    for column in COLUMNS:
        for refine in REFINES:
            for prompt in PROMPTS:
                row = f"model/{refine}/{prompt}"
                one = first.rows.get(row, {}).get(column, {})
                other = second.rows.get(row, {}).get(column, {})
                both = {key: (one[key], other[key]) for key in one if key in other}
                for setting in [ALL, *dict.fromkeys(setting for setting, _ in both)]:
                    gain = _gain(both, setting)
                    if gain is not None:
                        found.append(Gain(column, refine, prompt, setting, *gain))
    return found


def _gain(
    both: Mapping[Key, tuple[float, float]], setting: str
) -> tuple[Interval, Interval, Interval] | None:
    pairs = [pair for key, pair in both.items() if setting in (ALL, key[0])]
    values = [[a for a, _ in pairs], [b for _, b in pairs], [b - a for a, b in pairs]]
    before, after, difference = map(bootstrap, values)
    if before is None or after is None or difference is None:
        return None
    return before, after, difference


def gain_lines(gains: Sequence[Gain]) -> list[str]:
    """The main gains for a terminal, and for a model card."""
    lines = ["SI-SDR improvement of held-out targets, refined, before -> after, and 95 % interval:"]
    for gain in gains:
        if (gain.column, gain.refine, gain.setting) == ("sisdri", "wiener", ALL):
            change = gain.difference
            lines.append(
                f"  {gain.prompt:<10} {gain.before.mean:+5.1f} -> {gain.after.mean:+5.1f} dB, gain "
                f"{interval_text(change, '{:+.1f}')}, {counted(change.n, 'mixture')}"
            )
    return lines


def gains_page(
    title: str,
    facts: Mapping[str, str],
    gains: Sequence[Gain],
    metrics: Sequence[Mapping[str, Any]],
) -> str:
    """The report of a fine-tuning; `metrics` are the lines of its workdir."""
    rows = [(html.escape(name), html.escape(value)) for name, value in facts.items()]
    body = [f"<h1>{html.escape(title)}</h1>", _tiles(gains), page.cells_table(("", ""), rows)]
    body.append(
        "<h2>Held-out mixtures</h2><p>The same mixtures of recordings that the training did not "
        "have, separated by the model that it began with and by the one that came out. The gain is "
        "the mean of the differences, mixture by mixture; intervals (95 %) resample mixtures.</p>"
    )
    for column in COLUMNS:
        of_column = [gain for gain in gains if gain.column == column]
        if of_column:
            body += [f"<h3>{html.escape(score_title(column))}</h3>", _table(of_column)]
    body += ["<h2>Training</h2>", _charts(metrics)]
    return page.document(title, "".join(body))


def _tiles(gains: Sequence[Gain]) -> str:
    tiles = []
    for gain in gains:
        if (gain.column, gain.refine, gain.setting) == ("sisdri", "wiener", ALL):
            change = gain.difference
            sure = f"{change.low:+.1f} to {change.high:+.1f} dB" if change.n > 1 else "one mixture"
            text = f"{sure} SI-SDR, by {gain.prompt}"
            tiles.append(f'<div class="tile"><b>{change.mean:+.1f} dB</b>{html.escape(text)}</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _table(gains: Sequence[Gain]) -> str:
    groups: dict[str, dict[str, list[Interval | float | None]]] = {}
    for gain in gains:
        group = groups.setdefault(f"{gain.prompt}, {REFINED[gain.refine]}", {})
        group[gain.setting] = [gain.before, gain.after, gain.difference]
    return page.table(["before", "after", "gain"], groups)


def _charts(metrics: Sequence[Mapping[str, Any]]) -> str:
    names = {"loss": "training loss", "flow_loss/averaged/all": "held-out flow loss"}
    charts = []
    for name, title in names.items():
        points = [(line["step"], line[name]) for line in metrics if line.get(name) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            charts.append(page.chart(title, steps, values))
    return f'<div class="charts">{"".join(charts)}</div>'
