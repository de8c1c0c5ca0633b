"""The look of the report: its style sheet, tables and line charts as plain HTML and SVG."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sam_audio_jax.eval.statistics import Interval

POINTS = 300  # of a chart; longer curves are averaged

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2128; --soft: #59636e; --line: #d8dee4;
  --card: #f6f8fa; --accent: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --ink: #e3e7ec; --soft: #9aa4af;
  --line: #343b44; --card: #1a2027; --accent: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
p, summary { max-width: 60rem; } .soft, td small, th small { color: var(--soft); font-weight: 400; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.tile { background: var(--card); border-radius: 8px; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom-width: 2px; }
tr.group td { color: var(--soft); padding-top: .9rem; }
td small { display: block; font-size: .75rem; }
.scene { background: var(--card); border-radius: 8px; padding: 1rem; margin: .75rem 0; }
.scene img { display: block; width: 100%; max-width: 52rem; border-radius: 4px;
  margin-top: .75rem; }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: .6rem 1rem; margin-top: .75rem; }
.players label { display: block; font-size: .85rem; } audio { width: 100%; height: 2.2rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .9rem; } svg { width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); }
svg .curve { stroke: var(--accent); fill: none; stroke-width: 2; stroke-linejoin: round; }
pre { overflow-x: auto; background: var(--card); padding: 1rem; border-radius: 8px;
  font-size: .8rem; }
"""


def document(title: str, body: str) -> str:
    """A whole page that needs no other file."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def number(
    value: Interval | float | None, *, percent: bool = False, digits: int = 1, count: int = 0
) -> str:
    """`12.3` over its interval; a dash where nothing was measured.

    A number that others published has no interval, nor has that of one item. Where the interval is
    of another number of items than `count`, that number is there, too (0: it is the count).
    """
    if value is None:
        return "<td>&ndash;</td>"
    if not isinstance(value, Interval):
        return f"<td>{formatted(value, digits)}</td>"
    mean, notes = mean_and_bounds(value, percent=percent, digits=digits)
    if percent or (value.n != count and (count or value.n == 1)):
        notes.append(f"n={value.n}")
    small = f"<small>{', '.join(notes)}</small>" if notes else ""
    return f"<td>{mean}{' %' if percent else ''}{small}</td>"


def mean_and_bounds(
    interval: Interval, *, percent: bool = False, digits: int = 1
) -> tuple[str, list[str]]:
    """A mean, and its interval as a list of one text; that of one item alone is empty."""
    scale, digits = (100, 0) if percent else (1, digits)
    numbers = (interval.mean, interval.low, interval.high)
    mean, low, high = (formatted(scale * one, digits) for one in numbers)
    return mean, [f"{low} to {high}"] if interval.n > 1 else []


def formatted(value: float, digits: int) -> str:
    """Formats with so many decimals and the sign of minus of HTML; zero has no sign."""
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if not float(text) else text).replace("-", "&minus;")


def table(
    heads: Mapping[str, str] | Sequence[str],
    groups: Mapping[str, Mapping[str, Sequence[Interval | float | None]]],
    *,
    percent: bool | Sequence[bool] = False,
    digits: int = 1,
    counts: Sequence[int] = (),
) -> str:
    """Rows under group headings; every row has one number for each head.

    A mapping of heads has a small note for each. All of it is plain text, which is escaped here.
    `percent`: of all numbers, or of those below each head. `counts` says of how many items the
    numbers below each head are, unless they say otherwise.
    """
    notes = heads if isinstance(heads, Mapping) else dict.fromkeys(heads, "")
    columns = [
        f"{html.escape(head)}{f' <small>{html.escape(note)}</small>' if note else ''}"
        for head, note in notes.items()
    ]
    shares = [percent] * len(heads) if isinstance(percent, bool) else percent
    lines = []
    for group, rows in groups.items():
        if rows:
            named = f'<td colspan="{len(heads) + 1}">{html.escape(group)}</td>'
            lines.append(f'<tr class="group">{named}</tr>')
        for name, cells in rows.items():
            values = "".join(
                number(cell, percent=share, digits=digits, count=count)
                for cell, share, count in zip(
                    cells, shares, counts or [0] * len(cells), strict=True
                )
            )
            lines.append(f"<tr><td>{html.escape(name)}</td>{values}</tr>")
    return _framed(["", *columns], lines)


def cells_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose heads and cells are HTML already."""
    lines = ["".join(f"<td>{cell}</td>" for cell in cells) for cells in rows]
    return _framed(heads, [f"<tr>{line}</tr>" for line in lines])


def _framed(heads: Iterable[str], lines: Iterable[str]) -> str:
    first = "".join(f"<th>{head}</th>" for head in heads)
    inside = f"<thead><tr>{first}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def chart(title: str, steps: Sequence[int], values: Sequence[float]) -> str:
    """A line over training steps; outliers of a long curve are clipped at the frame."""
    x, y = _thinned(np.asarray(steps, float), np.asarray(values, float))
    ticks_y = ticks(*(np.percentile(y, [1, 99]) if len(y) > 50 else (y.min(), y.max())))
    ticks_x = ticks(0.0, float(x.max()))
    left, top, width, height = 44, 8, 380, 150

    def across(v: float) -> float:
        return round(left + width * (v - ticks_x[0]) / (ticks_x[-1] - ticks_x[0]), 1)

    def down(v: float) -> float:
        inside = min(max(v, ticks_y[0]), ticks_y[-1])
        return round(top + height * (ticks_y[-1] - inside) / (ticks_y[-1] - ticks_y[0]), 1)

    grid = "".join(
        f'<path class="grid" d="M{left} {down(t)}h{width}"/>'
        f'<text x="{left - 6}" y="{down(t) + 4}" text-anchor="end">{t:g}</text>'
        for t in ticks_y
    )
    grid += "".join(
        f'<text x="{across(t)}" y="{top + height + 18}" text-anchor="middle">{t:g}</text>'
        for t in ticks_x
    )
    points = " ".join(f"{across(a)},{down(b)}" for a, b in zip(x, y, strict=True))
    line = f'<polyline class="curve" points="{points}"/>'
    if len(x) == 1:
        line = f'<circle cx="{across(x[0])}" cy="{down(y[0])}" r="4" fill="var(--accent)"/>'
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {left + width + 20} {top + height + 28}" role="img" '
        f'aria-label="{html.escape(title)}">{grid}{line}</svg></figure>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose both, three to seven of them."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(round(k * step, 12)) for k in range(first, last + 1)]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages runs of neighbouring points, so that at most POINTS remain."""
    parts = min(POINTS, len(x))
    pairs = zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)
    means = [(float(a.mean()), float(b.mean())) for a, b in pairs]
    return np.array([a for a, _ in means]), np.array([b for _, b in means])
