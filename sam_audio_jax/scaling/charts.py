"""Charts of a study's page: points and lines as SVG."""

import dataclasses
import html
import math
from collections.abc import Callable, Sequence

import numpy as np

HUES = (210, 28, 130, 345, 265, 50, 185, 310, 95)
WIDTH, HEIGHT, LEFT, TOP = 560, 300, 56, 10
BOTTOM, RIGHT = HEIGHT - 34, WIDTH - 10
Coordinates = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one colour, and a line."""

    name: str  # in the legend; empty: not there
    colour: int  # a number
    x: Coordinates
    y: Coordinates
    line_x: Coordinates = ()
    line_y: Coordinates = ()


def chart(title: str, series: Sequence[Series], *, logarithmic: bool = True) -> str:
    """A figure with a legend. The horizontal axis is logarithmic, the other one if so wanted."""
    across, x_ticks = _axis([[*one.x, *one.line_x] for one in series], LEFT, RIGHT, True)
    down, y_ticks = _axis([[*one.y, *one.line_y] for one in series], BOTTOM, TOP, logarithmic)
    parts = [
        f'<path class="grid" d="M{LEFT} {down(t)}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{down(t) + 4}" text-anchor="end">{t:.3g}</text>'
        for t in y_ticks
    ]
    parts += [
        f'<text x="{across(t)}" y="{BOTTOM + 18}" text-anchor="middle">{t:.3g}</text>'
        for t in x_ticks
    ]
    legend = []
    for one in series:
        colour = f"hsl({HUES[one.colour % len(HUES)]} 65% 50%)"
        parts += [
            f'<circle cx="{across(a)}" cy="{down(b)}" r="3" fill="{colour}"/>'
            for a, b in zip(one.x, one.y, strict=True)
        ]
        line = " ".join(
            f"{across(a)},{down(b)}" for a, b in zip(one.line_x, one.line_y, strict=True)
        )
        if line:
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        if one.name:
            name = html.escape(one.name).replace(" ", "&nbsp;")
            legend.append(f'<span style="color:{colour}">&#9679;</span>&nbsp;{name}')
    caption = html.escape(title) + ("<br>" + " &nbsp; ".join(legend) if legend else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _axis(
    values: Sequence[Coordinates], start: int, end: int, logarithmic: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value is between two places of the picture, and five numbers for the axis."""
    every = np.concatenate([np.asarray(some, np.float64) for some in values])
    scale = math.log if logarithmic else float
    low, high = scale(every.min()), scale(every.max())
    # A margin, and some height where all values are one.
    margin = max(0.05 * (high - low), 0.001)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(start + (end - start) * (scale(value) - low) / (high - low), 1)

    spread = np.linspace(low, high, 7)[1:-1]
    if not logarithmic:
        decimals = max(0, -math.floor(math.log10(spread[1] - spread[0])))
        return place, [round(float(value), decimals) for value in spread]
    digits = 2 if high - low > math.log(2) else 3
    return place, [float(f"{value:.{digits}g}") for value in np.exp(spread)]
