"""Chooses how a model's stems become a mask, on fixed mixtures of validation recordings.

`python -m tools.choose_refinement MODEL --bench DIR [--limit N] [--out FILE] [--write]`

Separates every mixture once by each kind of prompt and divides it by masks of several exponents,
with and without the gate of the spans. Prints for each the mean improvement of the target's SI-SDR
and how far the other sound is lowered in it, both in dB; the second also where the spans are wrong:
moved, or cut short. `--write` saves the best exponent, by the mean over the kinds, with the gate in
the model folder's sam_audio_jax.json. The mixtures must not be those that results are reported on.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import tqdm

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval import distances
from sam_audio_jax.eval.prompting import SolverChoice, separate_batch
from sam_audio_jax.eval.recorded import Rendered, Wave
from sam_audio_jax.eval.suite import Separation, batches, fixed_suite
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig, wiener
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.separator.prompts import Span
from tools.model_settings import add_write_option, check_write_option, write_setting

EXPONENTS = (0.35, 0.45, 0.55, 0.7, 0.85, 1.0, 1.2, 1.5)
PROMPTS = ("text", "span", "text+span")
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
    rate, mixture = rendered.sample_rate, rendered.mixture
    target, _ = wiener(
        mixture[None], *stems, sample_rate=rate, stem_rate=rate, config=refinement, spans=spans
    )
    exact = target[0].astype(np.float64)
    truth, other = (one.astype(np.float64) for one in (rendered.target, rendered.residual))
    improvement = distances.si_sdr_improvement(exact, truth, mixture.astype(np.float64))
    left, *_ = np.linalg.lstsq(np.stack([truth, other], axis=1), exact, rcond=None)
    share = abs(left[1]) / max(abs(left[0]), 1e-6)
    return float(improvement), float(-20 * np.log10(max(share, 1e-6)))


Cell = tuple[str, str, float]  # kind of prompt, how the mask is bounded, exponent


def measure_all(
    model: SAMAudio, separations: Sequence[Separation], batch: int
) -> dict[Cell, list[tuple[float, float]]]:
    """What `measure` gives for each mixture, by kind of prompt, gate and exponent."""
    cells: dict[Cell, list[tuple[float, float]]] = {}
    groups = batches(separations, batch)
    for group in tqdm.tqdm(groups, desc="separating", unit="batch"):
        loaded = [separation.load() for separation in group]
        for separated in separate_batch(model, loaded, batch, SolverChoice()):
            one, rendered = separated.prompted, separated.prompted.recorded
            if not isinstance(rendered, Rendered):
                continue  # fixed mixtures all are
            stems = (separated.target, separated.residual)
            spans = one.positive_spans() or []
            gates = {"no gate": None} | (
                {f"gate, {name}": by for name, by in WRONG.items()} if spans else {}
            )
            for gate, by in gates.items():
                marked = moved(spans, by, rendered.item.seconds) if by else []
                for exponent in EXPONENTS:
                    how = dataclasses.replace(DEFAULT, exponent=exponent, gate=by is not None)
                    value = measure(rendered, stems, how, marked)
                    cells.setdefault((one.kind, gate, exponent), []).append(value)
    return cells


def table(cells: dict[Cell, list[tuple[float, float]]]) -> str:
    """Mean improvement / rejection in dB: a row for each prompt and gate, a column an exponent."""
    rows = list(dict.fromkeys(cell[:2] for cell in cells))
    lines = ["| prompt | mask | " + " | ".join(f"{e:g}" for e in EXPONENTS) + " |"]
    lines.append("|---" * (2 + len(EXPONENTS)) + "|")
    for kind, gate in rows:
        means = [np.mean(cells[kind, gate, exponent], axis=0) for exponent in EXPONENTS]
        lines.append(
            f"| {kind} | {gate} | " + " | ".join(f"{a:.2f} / {b:.1f}" for a, b in means) + " |"
        )
    return "\n".join(lines)


def best_exponent(cells: dict[Cell, list[tuple[float, float]]]) -> float:
    """The exponent with the highest mean improvement over the kinds of prompts, without a gate."""

    def mean(exponent: float) -> float:
        kinds = [cells[cell] for cell in cells if cell[1:] == ("no gate", exponent)]
        return float(np.mean([np.mean([one for one, _ in kind]) for kind in kinds]))

    return max(EXPONENTS, key=mean)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="choose_refinement")
    parser.add_argument("model", help="a model folder, or any checkpoint if nothing is written")
    parser.add_argument("--bench", required=True, help="folder of fixed mixtures")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, choices=PROMPTS)
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
    suite = fixed_suite(options.bench, model.sample_rate, options.prompts, options.limit)
    right = [one for one in suite.separations if one.right]
    cells = measure_all(model, right, options.batch)
    print(table(cells))
    best = {"exponent": best_exponent(cells), "gate": True}
    print(f"{len(suite.rendered)} mixtures; best: {best}")
    write_setting(options, "refine", best)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
