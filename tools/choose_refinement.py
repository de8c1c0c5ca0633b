"""Chooses how a model's stems become a mask, on fixed mixtures of validation recordings.

`python -m tools.choose_refinement MODEL --bench DIR [--limit N] [--floor GAIN] [--write]`

Separates every mixture once by each kind of prompt and divides it by masks of several exponents and
floors, and with the gate of the spans. Prints for each the mean improvement of the target's SI-SDR
and how far the other sound is lowered in it, both in dB; behind the gate also where the spans are
wrong: moved, or cut short. Where the list names absent sounds it prints the median level of their
targets in dB of the mixture, which a floor raises. `--write` saves `--floor`, the exponent that is
best with it, by the mean over the kinds, and the gate in the model folder's sam_audio_jax.json. The
mixtures must not be those that results are reported on.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval import baselines, distances, scoring
from sam_audio_jax.eval.mixtures import load_bench
from sam_audio_jax.eval.prompting import (
    ABSENT,
    PROMPTS,
    PromptedMixture,
    SolverChoice,
    separate_batch,
)
from sam_audio_jax.eval.recorded import Rendered, Wave
from sam_audio_jax.eval.suite import Separation, batches, choose, fixed_suite
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.separator.prompts import Span
from tools.model_settings import add_write_option, check_write_option, write_setting

EXPONENTS = (0.35, 0.45, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5)
FLOORS = (0.0, 0.0125, 0.025, 0.05)  # none, -38, -32, -26 dB
# Seconds by which a listener's marks may be wrong: both ends moved, or each moved inwards.
WRONG = {"exact": (0.0, 0.0), "0.2 s late": (0.2, 0.2), "0.2 s short": (0.2, -0.2)}


def moved(spans: Sequence[Span], by: tuple[float, float], seconds: float) -> list[Span]:
    """The spans with both ends moved, those that end up empty left out."""
    ends = [(token, max(0.0, a + by[0]), min(seconds, b + by[1])) for token, a, b in spans]
    return [span for span in ends if span[1] < span[2]]


def measure(
    rendered: Rendered, stems: tuple[Wave, Wave], refinement: RefineConfig, spans: Sequence[Span]
) -> tuple[float, float]:
    """SI-SDR improvement of the refined target, and what the residual in it lost, in dB."""
    target, _ = baselines.masked(rendered.mixture, stems, rendered.sample_rate, refinement, spans)
    exact = target.astype(np.float64)
    truth, other = (one.astype(np.float64) for one in (rendered.target, rendered.residual))
    mixture = rendered.mixture.astype(np.float64)
    improvement = distances.si_sdr_improvement(exact, truth, mixture)
    left, *_ = np.linalg.lstsq(np.stack([truth, other], axis=1), exact, rcond=None)
    share = abs(left[1]) / max(abs(left[0]), 1e-6)
    return float(improvement), float(-20 * np.log10(max(share, 1e-6)))


Cell = tuple[str, str, float]  # kind of prompt, how the mask is bounded, exponent


def measure_all(
    model: SAMAudio, separations: Sequence[Separation], batch: int, floor: float
) -> dict[Cell, list[tuple[float, float]]]:
    """What `measure` gives for each mixture, by kind of prompt, bounds of the mask and exponent.

    `floor` is that of the masks with a gate. Of absent sounds both numbers are the target's level.
    """
    cells: dict[Cell, list[tuple[float, float]]] = {}
    groups = batches(separations, batch, by_kind=True)
    for group in progress_bar(groups, desc="separating", unit="batch"):
        loaded = [separation.load() for separation in group]
        for separated in separate_batch(model, loaded, batch, SolverChoice()):
            one, rendered = separated.prompted, separated.prompted.recorded
            if not isinstance(rendered, Rendered):
                continue  # fixed mixtures all are
            stems = (separated.target, separated.residual)
            for how, spans, bounds in masks(one, rendered.item.seconds, floor):
                if one.kind == ABSENT:
                    mixture, rate = rendered.mixture, rendered.sample_rate
                    target, _ = baselines.masked(mixture, stems, rate, how, spans)
                    level = scoring.level_db(target, mixture)
                    value = level, level
                else:
                    value = measure(rendered, stems, how, spans)
                cells.setdefault((one.kind, bounds, how.exponent), []).append(value)
    return cells


def masks(
    one: PromptedMixture, seconds: float, floor: float
) -> Iterator[tuple[RefineConfig, list[Span], str]]:
    """Every mask to be measured, with its spans and what bounds it."""
    marks = one.positive_spans() or []
    for exponent in EXPONENTS:
        how = dataclasses.replace(DEFAULT, exponent=exponent)
        for each in FLOORS:
            yield dataclasses.replace(how, floor=each), [], _bounds(each)
        for name, by in WRONG.items() if marks else ():
            gated = dataclasses.replace(how, floor=floor, gate=True)
            yield gated, moved(marks, by, seconds), f"{_bounds(floor)}, gate, {name}"


def _bounds(floor: float) -> str:
    return f"floor {floor:g}"


def table(cells: dict[Cell, list[tuple[float, float]]]) -> str:
    """Mean improvement / rejection in dB: a row for each prompt and bounds, a column an exponent.

    Of absent sounds a row has the median level of the target.
    """
    rows = list(dict.fromkeys(cell[:2] for cell in cells))
    lines = ["| prompt | mask | " + " | ".join(f"{e:g}" for e in EXPONENTS) + " |"]
    lines.append("|---" * (2 + len(EXPONENTS)) + "|")
    for kind, bounds in rows:
        columns = [cells[kind, bounds, exponent] for exponent in EXPONENTS]
        if kind == ABSENT:
            found = [f"{np.median(column):.1f}" for column in columns]
        else:
            found = ["{:.2f} / {:.1f}".format(*np.mean(column, axis=0)) for column in columns]
        lines.append(f"| {kind} | {bounds} | " + " | ".join(found) + " |")
    return "\n".join(lines)


def best_exponent(cells: dict[Cell, list[tuple[float, float]]], floor: float) -> float:
    """The exponent with the highest mean improvement over the kinds of prompts, without a gate."""

    def mean(exponent: float) -> float:
        bounds = _bounds(floor)
        kinds = [
            cells[kind, bounds, exponent] for kind in PROMPTS if (kind, bounds, exponent) in cells
        ]
        return float(np.mean([np.mean([one for one, _ in kind]) for kind in kinds]))

    return max(EXPONENTS, key=mean)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="choose_refinement")
    parser.add_argument("model", help="a model folder, or any checkpoint if nothing is written")
    parser.add_argument("--bench", required=True, help="folder of fixed mixtures")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, choices=PROMPTS)
    parser.add_argument(
        "--floor", type=float, default=FLOORS[0], choices=FLOORS, help="least gain of the mask"
    )
    parser.add_argument("--limit", type=at_least(1), help="mixtures used; default: all")
    parser.add_argument("--batch", type=at_least(1), default=8)
    add_write_option(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the table and the choice; writes the choice if asked to."""
    options = read_options(argv)
    check_write_option(options)
    model = SAMAudio.from_pretrained(options.model)
    chosen = choose(load_bench(options.bench).mixtures, options.limit)
    named = any(item.absent for item in chosen)
    kinds = [*options.prompts, *([ABSENT] if named else [])]
    suite = fixed_suite(options.bench, model.sample_rate, kinds, options.limit)
    right = [one for one in suite.separations if one.right]
    cells = measure_all(model, right, options.batch, options.floor)
    print(table(cells))
    exponent = best_exponent(cells, options.floor)
    best = {"exponent": exponent, "floor": options.floor, "gate": True}
    print(f"{len(suite.rendered)} mixtures; best with this floor: {best}")
    write_setting(options, "refine", best)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
