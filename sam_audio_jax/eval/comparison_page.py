"""The page of a comparison: all scores in one table, then each by settings and groups of items."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from sam_audio_jax.eval import page
from sam_audio_jax.eval.statistics import ALL, Interval
from sam_audio_jax.eval.titles import row_titles, score_title

EXPLAINED = (
    "Net win rate: the share of items where the first is better less the share where the second "
    "is; ties count in the denominator. Differences are signed so that positive is better for the "
    "first. Intervals (95 %) resample items in pairs."
)
MODEL = "model/"  # begins the rows of a report that are compared
AGAINST = " against "  # between the names of two systems, or of two rows
HEADS = ("net win rate", "first", "second", "difference")
PERCENT = (True, False, False, False)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One score of both systems over the items of a group."""

    row: str
    column: str
    setting: str
    group: str  # "" for all items of the setting
    wins: Interval  # net win rate of A over B
    difference: Interval  # of A less B; positive is better for A
    means: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)

    def numbers(self) -> list[Interval | float | None]:
        """What `HEADS` name."""
        return [self.wins, *self.means, self.difference]


def without_doubles(found: Sequence[Comparison]) -> list[Comparison]:
    """Leaves out SI-SDR where its improvement is there: of one mixture both differ alike."""
    columns = {(one.row, one.column) for one in found}
    improvement = {"sisdr": "sisdri", "sisdr_residual": "sisdri_residual"}
    return [one for one in found if (one.row, improvement.get(one.column)) not in columns]


def comparison_page(names: Sequence[str], found: Sequence[Comparison]) -> str:
    """The HTML of the comparisons of two systems with these names."""
    heading = AGAINST.join(names)
    body = f"<h1>{html.escape(heading)}</h1><p>{EXPLAINED}</p>{_overview(found)}"
    details = [_details(row, column, found) for row, column in _scores(found)]
    body += "<h2>By setting, and by what is known of the mixtures</h2>" + "".join(details)
    return page.document(heading, body)


def _scores(found: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Row and column of every score, in the order of first appearance."""
    return [*dict.fromkeys((one.row, one.column) for one in found)]


def _overview(found: Sequence[Comparison]) -> str:
    """Every score over all items."""
    groups: dict[str, dict[str, list[Interval | float | None]]] = {}
    for one in found:
        if one.setting == ALL and not one.group:
            groups.setdefault(_row_title(one.row), {})[score_title(one.column)] = one.numbers()
    return page.table(HEADS, groups, percent=PERCENT, digits=2)


def _details(row: str, column: str, found: Sequence[Comparison]) -> str:
    """One score by settings, and over all settings by groups of items; closed at first."""
    groups: dict[str, dict[str, list[Interval | float | None]]] = {}
    for one in found:
        if (one.row, one.column) != (row, column) or (one.group and one.setting != ALL):
            continue
        heading = "By what is known of the mixtures" if one.group else "By setting"
        groups.setdefault(heading, {})[one.group or one.setting] = one.numbers()
    summary = html.escape(f"{_row_title(row)}: {score_title(column)}")
    table = page.table(HEADS, groups, percent=PERCENT, digits=2)
    return f"<details><summary>{summary}</summary>{table}</details>"


def _row_title(row: str) -> str:
    """A row in words, or two that were named; that of a table as it is."""
    return AGAINST.join(
        ", ".join(row_titles(one)) if one.startswith(MODEL) else one for one in row.split(AGAINST)
    )
