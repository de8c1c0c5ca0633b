"""Two results against each other, item by item: net win rates and differences with intervals.

Definition: docs/benchmark.md, "Comparison". A result is the report of an evaluation or a table of
scores that people, or any program, gave.
"""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.eval.comparison_page import (
    AGAINST,
    MODEL,
    Comparison,
    comparison_page,
    without_doubles,
)
from sam_audio_jax.eval.descriptors import DESCRIPTORS, LEVELS
from sam_audio_jax.eval.scoring import SILENT
from sam_audio_jax.eval.statistics import (
    ALL,
    Interval,
    bootstrap,
    counted,
    interval_text,
    net_win_rate,
)
from sam_audio_jax.files import read_lines, read_object, whole_folder

PEOPLE = "table"  # the row of a table's scores
ITEM = ("id", "setting")  # of a score; everything else in a table is a column
NAMES = (*ITEM, "row")  # of a score in a report
# `absent_level`: of the target of a sound that is not there, at best silence.
LOWER_IS_BETTER = ("logmel", "logmel_residual", "stft", "absent_level")
# More is neither better nor worse.
NOT_COMPARED = ("level", "kept", "aesthetics_PC", *SILENT.values())
GROUPS = 3  # of equally many items, by a descriptor of many values
FEWEST = 10  # items that are split into groups
SAME_LENGTH_S = 0.1  # by which an item's length differs at most between rates of two models
SAME_DB = 0.1  # by which levels and loudness of one mixture differ at most, read at one rate
# The same at two rates, one of which lacks the highest sounds of the other.
SIMILAR_DB = 1.0
MIXTURE_LEVELS = ("loudness_lufs", "ratio_db", LEVELS)  # of what is known of an item

Key = tuple[str, str]  # setting and id


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of one system: row -> column -> (setting, id) -> score."""

    name: str
    rows: Mapping[str, Mapping[str, Mapping[Key, float]]]
    described: Mapping[Key, Mapping[str, float]]  # what is known of the items
    bench: str = ""  # of a report
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of a report
    # Of a report, by `MIXTURE_LEVELS`: one level or several of each item, in dB.
    levels: Mapping[Key, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    silent: int = 0  # separated stems of a report that are digital silence


def compare(
    first: str | pathlib.Path,
    second: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    rows: Sequence[str] | None = None,
    seed: int = 0,
) -> str:
    """Compares two results, writes `comparison.json` and `report.html`; returns the main lines.

    `rows` are one row of each, as `model/none/text`; by default those that both have. Raises
    `UserError` for what is no result, where the two have no score of an item in common, and where
    items of one name are other recordings.
    """
    ours, theirs = read_scored(first), read_scored(second)
    for one in (ours, theirs):
        if one.silent:
            print(
                f"warning: {one.silent} separated stems of {one.name} are digital silence, for "
                "which SI-SDR is 0 dB, an improvement wherever the mixture is below",
                file=sys.stderr,
            )
    _check_recordings(ours, theirs)
    found = list(_comparisons(ours, theirs, rows, seed))
    if not found:
        reason = _why_nothing(ours, theirs, rows)
        raise UserError(f"{first} and {second} have no score of an item in common: {reason}")
    seen = without_doubles(found)
    lines = [one for one in seen if not one.group and one.setting == ALL]
    names = _titles(ours, theirs)
    with whole_folder(pathlib.Path(out)) as folder:
        content = {"a": ours.name, "b": theirs.name, "comparisons": [c.as_dict() for c in found]}
        (folder / "comparison.json").write_text(json.dumps(content, indent=1))
        (folder / "report.html").write_text(comparison_page(names, seen), encoding="utf-8")
    head = f"net win rate of {' over '.join(names)}, and mean difference:"
    return "\n".join([head, *map(_line, lines)])


def read_scored(path: str | pathlib.Path) -> Scored:
    """Reads a report's folder, its results.json, or a table in JSON lines or CSV.

    A table has `id`, optionally `setting`, and one column or more of numbers; several lines of one
    item are several raters, whose mean counts. Raises `UserError` with the line of what is wrong.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path /= "results.json"
    if not path.is_file():
        raise UserError(
            f"no results at {path}: give the folder that evaluate wrote, its results.json, or a "
            "table in .jsonl or .csv"
        )
    if path.suffix == ".json":
        return _from_results(path)
    readers: Mapping[str, Callable[[pathlib.Path], Iterator[tuple[int, Any]]]] = {
        ".jsonl": lambda one: iter(read_lines(one)),
        ".csv": _csv_lines,
    }
    if path.suffix not in readers:
        raise UserError(f"{path} must be a report, a results.json, or a table in .jsonl or .csv")
    return _from_table(path, readers[path.suffix](path))


def _from_results(path: pathlib.Path) -> Scored:
    results = read_object(path)
    try:
        items, described = results["items"], results.get("described", [])
        settings = dict(results.get("settings", {}))
        silent = len(results.get("silent", ()))
        rows: dict[str, dict[str, dict[Key, float]]] = {}
        for item in items:
            key = (item["setting"], item["id"])
            for column, value in item.items():
                of_model = item["row"].startswith(MODEL)  # not of a baseline
                if of_model and column not in (*NAMES, *NOT_COMPARED) and value is not None:
                    rows.setdefault(item["row"], {}).setdefault(column, {})[key] = float(value)
        known = {
            (one["setting"], one["id"]): {name: one[name] for name in DESCRIPTORS if name in one}
            for one in described
        }
        levels = {
            (one["setting"], one["id"]): {
                name: np.asarray(one[name], np.float64)
                for name in MIXTURE_LEVELS
                if one.get(name) is not None
            }
            for one in described
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no results of an evaluation: {error!r}") from None
    bench = str(results.get("bench", ""))
    return Scored(path.parent.name, rows, known, bench, settings, levels, silent)


def _titles(ours: Scored, theirs: Scored) -> list[str]:
    """The names of both, with those of their benches where these differ."""
    show = ours.bench != theirs.bench
    return [
        f"{one.name} (on {one.bench})" if one.bench and show else one.name for one in (ours, theirs)
    ]


def _check_recordings(ours: Scored, theirs: Scored) -> None:
    """Raises `UserError` for an item that is another mixture in one of two reports.

    It is longer there, or another level; levels at two sample rates are only warned of.
    """
    both = " and ".join(_titles(ours, theirs))
    for key, known in ours.described.items():
        other = theirs.described.get(key, {})
        if not ("seconds" in known and "seconds" in other):
            continue
        if abs(known["seconds"] - other["seconds"]) > SAME_LENGTH_S:
            raise UserError(
                f"{both} are of other recordings: {'/'.join(key)} has {known['seconds']:.2f} and "
                f"{other['seconds']:.2f} s"
            )
    apart = {
        key: _apart_db(levels, theirs.levels[key])
        for key, levels in ours.levels.items()
        if key in theirs.levels
    }
    rates = [one.settings.get("sample_rate") for one in (ours, theirs)]
    at_one_rate = rates[0] == rates[1]
    others = {
        key: pair
        for key, pair in apart.items()
        if pair[1] > (SAME_DB if at_one_rate else SIMILAR_DB)
    }
    if not others:
        return
    key, (name, most) = max(others.items(), key=lambda item: item[1][1])
    what = (
        f"{len(others)} of {len(apart)} items differ in level, {'/'.join(key)} by {most:.1f} dB in "
        f"{name}"
    )
    if at_one_rate:
        raise UserError(f"{both} are of other mixtures: {what}")
    print(
        f"warning: {both} may be of other mixtures: {what}, read at {rates[0]} and {rates[1]} Hz",
        file=sys.stderr,
    )


def _apart_db(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, float]:
    """The level in which two mixtures differ most, and by how many dB; ("", 0) if none is known."""
    found = [
        (name, float(np.abs(levels - other[name]).max()))
        for name, levels in one.items()
        if name in other and levels.shape == other[name].shape and levels.size
    ]
    return max(found, key=lambda pair: pair[1], default=("", 0.0))


def _csv_lines(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line of a table with a head, and its fields."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            if len(set(names)) < len(names):
                twice = max(names, key=names.count)
                raise UserError(f"{path} has several columns {twice!r}: give each another name")
            for fields in reader:
                yield reader.line_num, fields
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {first_line(error)}") from None


def _from_table(path: pathlib.Path, lines: Iterator[tuple[int, Any]]) -> Scored:
    raters: dict[str, dict[Key, list[float]]] = {}
    for number, fields in lines:
        where = f"{path} line {number}"
        no_id = UserError(f"{where} must have an id, a text, and scores, not {shown(fields)}")
        if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
            raise no_id
        # A row would not be known from a rater; a table has the scores of one system.
        columns = {name: value for name, value in fields.items() if name not in ITEM}
        if not columns or None in columns:
            raise UserError(f"{where} must have one score or more, each with a name")
        for column, value in columns.items():
            if value in (None, ""):
                continue
            score = _number(value, f"{where}: {column}")
            if not fields["id"].strip():  # as of merged cells; a line without scores is empty
                raise no_id
            key = (str(fields.get("setting") or ""), fields["id"])
            raters.setdefault(column, {}).setdefault(key, []).append(score)
    if not raters:
        raise UserError(f"{path} has no scores")
    means = {
        column: {key: _mean(scores) for key, scores in items.items()}
        for column, items in raters.items()
    }
    return Scored(path.stem, {PEOPLE: means}, {})


def _mean(scores: Sequence[float]) -> float:
    """The mean of the raters; rounded, so that means which are equal on paper are ties."""
    return float(f"{math.fsum(scores) / len(scores):.12g}") if len(scores) > 1 else scores[0]


def _number(value: Any, where: str) -> float:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise UserError(f"{where} must be a number, not {shown(value)}")
    return score


def _comparisons(
    ours: Scored, theirs: Scored, rows: Sequence[str] | None, seed: int
) -> Iterator[Comparison]:
    """All scores that both have: of each setting, of all, and of groups by what is known."""
    pairs = [(rows[0], rows[1])] if rows else [(row, row) for row in ours.rows]
    for scored, row in zip((ours, theirs), rows or (), strict=False):
        if row not in scored.rows:
            raise UserError(f"{scored.name} has no row {row!r}; it has {', '.join(scored.rows)}")
    described = {**theirs.described, **ours.described}
    for first, second in pairs:
        one, other = ours.rows[first], theirs.rows.get(second, {})
        name = first if first == second else f"{first}{AGAINST}{second}"
        for column in (column for column in one if column in other):
            both = _paired(one[column], other[column])
            settings = dict.fromkeys(setting for setting, _ in both if setting)
            for setting in [*settings, ALL]:
                chosen = {key: pair for key, pair in both.items() if setting in (key[0], ALL)}
                for group, keys in [("", list(chosen)), *_groups(chosen, described)]:
                    result = _compared([chosen[key] for key in keys], column, seed)
                    if result is not None:
                        yield Comparison(name, column, setting, group, *result)


def _why_nothing(ours: Scored, theirs: Scored, rows: Sequence[str] | None) -> str:
    """What two results without a comparison differ in: rows, scores or items."""
    pairs = [(rows[0], rows[1])] if rows else [(row, row) for row in ours.rows]
    shared = [(ours.rows[one], theirs.rows[other]) for one, other in pairs if other in theirs.rows]
    if not shared:
        names = (", ".join(scored.rows) or "none" for scored in (ours, theirs))
        return f"their rows are {' and '.join(names)}; --rows ROW_OF_A ROW_OF_B compares others"
    columns = [(one[name], other[name]) for one, other in shared for name in one if name in other]
    if not columns:
        names = (
            ", ".join(dict.fromkeys(itertools.chain(*side))) for side in zip(*shared, strict=True)
        )
        return f"their scores are {' and '.join(names)}"
    if any(_paired(one, other) for one, other in columns):
        return "none is a number in both"
    names = ("/".join(filter(None, min(scores))) for scores in columns[0])
    return f"they are of other items, such as {' and '.join(map(repr, names))}"


def _paired(one: Mapping[Key, float], other: Mapping[Key, float]) -> dict[Key, tuple[float, float]]:
    """The scores of the items that both have; a table without settings goes by ids alone."""
    if all(setting for setting, _ in (*one, *other)):
        return {key: (score, other[key]) for key, score in one.items() if key in other}
    by_id = [{key[1]: (key, score) for key, score in scores.items()} for scores in (one, other)]
    for scores, ids in zip((one, other), by_id, strict=True):
        if len(ids) < len(scores):
            raise UserError(
                "an id is in several settings of one result, and the other has no settings: add a "
                "column setting to the table"
            )
    return {
        max(by_id[0][name][0], by_id[1][name][0]): (by_id[0][name][1], by_id[1][name][1])
        for name in by_id[0]
        if name in by_id[1]
    }


def _groups(
    keys: Mapping[Key, Any], described: Mapping[Key, Mapping[str, float]]
) -> Iterator[tuple[str, list[Key]]]:
    """Items of a low, a middle and a high value of each descriptor; of each of few values."""
    for name, words in DESCRIPTORS.items():
        known = {key: described[key][name] for key in keys if name in described.get(key, {})}
        values = sorted(set(known.values()))
        if len(known) < FEWEST or len(values) < 2:
            continue
        if len(values) <= GROUPS:
            for value in values:
                yield f"{words}: {value:g}", [key for key in known if known[key] == value]
            continue
        order = sorted(known, key=lambda key: known[key])
        bounds = np.linspace(0, len(order), GROUPS + 1).round().astype(int)
        for start, stop in itertools.pairwise(bounds):
            part = order[start:stop]
            low, high = known[part[0]], known[part[-1]]
            yield f"{words}: {low:.3g} to {high:.3g}", part


def _compared(
    pairs: Sequence[tuple[float, float]], column: str, seed: int
) -> tuple[Interval, Interval, tuple[float, float]] | None:
    """Net win rate, mean difference and both means of paired scores; None without any."""
    if not pairs:
        return None
    sign = -1.0 if column in LOWER_IS_BETTER else 1.0
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    wins = net_win_rate((sign * a).tolist(), (sign * b).tolist(), seed=seed)
    difference = bootstrap((sign * (a - b)).tolist(), seed=seed)
    if wins is None or difference is None:
        return None
    return wins, difference, (float(a.mean()), float(b.mean()))


def _line(one: Comparison) -> str:
    wins, difference = one.wins, one.difference
    return (
        f"  {one.row + ', ' + one.column:<40} {interval_text(wins, '{:+.0%}')}, "
        f"{interval_text(difference, '{:+.2f}')}, {counted(wins.n, 'item')}"
    )
