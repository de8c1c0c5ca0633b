"""How much a ranker gains on fixed mixtures: its choice of K candidates, beside a random one.

`python -m tools.candidate_choice MODEL --bench DIR [--candidates 8] [--ranker judge=NAME]`

Every mixture is separated from K noises by its right prompt; the ranker of the model, or that of
`--ranker`, chooses one by the generated target. For each setting the table has the mean improvement
of the refined target's SI-SDR in dB of all candidates (what a random choice gives), of the chosen
and of the best one, chosen - random with its paired 95 % interval over mixtures, and the share of
the best one's gain that is captured. `--refine none` measures the generated targets.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float

from sam_audio_jax import config
from sam_audio_jax.cli.command import add_ranker_option, at_least, command, ranker_paths
from sam_audio_jax.eval.prompting import PROMPTS, SeparatedMixture, SolverChoice, separate_batch
from sam_audio_jax.eval.statistics import ALL, Interval, bootstrap, interval_text
from sam_audio_jax.eval.suite import REFINES, Separation, batches, fixed_suite
from sam_audio_jax.files import write_json
from sam_audio_jax.infer.refine import RefineConfig
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.scorers.scorer import Scorer, best, score_recordings
from sam_audio_jax.separator.flow import Method
from tools.sampler_table import improvement


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The candidates of one mixture: what they are worth, and what the ranker says of them."""

    id: str
    setting: str
    improvements: tuple[float, ...]  # of the target's SI-SDR, dB
    scores: tuple[float, ...]

    @property
    def random(self) -> float:
        """What a random choice improves in the mean."""
        return float(np.mean(self.improvements))

    @property
    def chosen(self) -> float:
        """What the ranker's choice improves."""
        (index,) = best(np.array([self.scores]))
        return self.improvements[int(index)]

    @property
    def best(self) -> float:
        """What the best candidate improves."""
        return max(self.improvements)


def candidates_of(
    model: SAMAudio,
    separations: Sequence[Separation],
    ranker: Scorer,
    solver: SolverChoice,
    refinement: RefineConfig | None,
    batch: int,
) -> list[Candidates]:
    """The candidates of all separations, `solver.candidates` of each."""
    found = []
    for group in progress_bar(batches(separations, batch), desc="separating", unit="batch"):
        loaded = [separation.load() for separation in group]
        noises = range(solver.seed, solver.seed + solver.candidates)
        choices = [dataclasses.replace(solver, seed=noise, candidates=1) for noise in noises]
        solved = [list(separate_batch(model, loaded, batch, choice)) for choice in choices]
        found += _scored(ranker, [list(one) for one in zip(*solved, strict=True)], refinement)
    return found


def _scored(
    ranker: Scorer,
    solved: Sequence[Sequence[SeparatedMixture]],
    refinement: RefineConfig | None,
) -> list[Candidates]:
    recordings = [several[0].prompted.recorded for several in solved]
    axis = ranker.axes[0]
    scores: Float[np.ndarray, "items candidates"] = score_recordings(
        ranker,
        [one.mixture for one in recordings],
        [np.stack([one.target for one in several]) for several in solved],
        recordings[0].sample_rate,
        [several[0].prompted.described for several in solved],
    )[axis]
    rows = zip(recordings, solved, np.asarray(scores), strict=True)
    return [
        Candidates(
            id=recorded.item.id,
            setting=recorded.item.setting,
            improvements=tuple(_improvement(one, refinement) for one in several),
            scores=tuple(map(float, row)),
        )
        for recorded, several, row in rows
    ]


def _improvement(separated: SeparatedMixture, refinement: RefineConfig | None) -> float:
    stems = separated.target, separated.residual
    return improvement(separated.prompted.recorded, stems, separated.spans, refinement)


def captured(items: Sequence[Candidates], seed: int = 0) -> Interval | None:
    """The share of the best candidates' gain that the choice has; None without any gain.

    Mixtures are resampled, so that gain and share are of the same ones.
    """
    gains = np.array([[one.chosen - one.random, one.best - one.random] for one in items])

    def share(rows: Float[np.ndarray, "*sets rows"], axis: int = -1) -> np.ndarray:
        chosen, most = (gains[rows.astype(int), side].sum(axis=axis) for side in (0, 1))
        return chosen / np.maximum(most, 1e-9)

    if gains[:, 1].sum() <= 0:
        return None
    numbers = [float(number) for number in range(len(items))]
    return bootstrap(numbers, seed=seed, statistic=share)


def table(items: Sequence[Candidates]) -> str:
    """A line for each setting, and one for all of them."""
    lines = [
        "| setting | mixtures | random | chosen | best | chosen - random | captured |",
        "|---" * 7 + "|",
    ]
    for setting in [*dict.fromkeys(one.setting for one in items), ALL]:
        own = [one for one in items if setting in (ALL, one.setting)]
        means = [np.mean([getattr(one, name) for one in own]) for name in ("random", "chosen")]
        means.append(np.mean([one.best for one in own]))
        gain, share = bootstrap([one.chosen - one.random for one in own]), captured(own)
        cells = [setting, str(len(own)), *(f"{mean:.2f}" for mean in means)]
        cells.append(interval_text(gain, "{:+.2f}"))
        cells.append(interval_text(share, "{:.0f} %", 100.0))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="candidate_choice")
    parser.add_argument("model", help="any checkpoint")
    parser.add_argument("--bench", required=True, help="folder of fixed mixtures, or embedded")
    parser.add_argument("--prompt", default="text", choices=PROMPTS)
    parser.add_argument("--limit", type=at_least(1), help="mixtures used; default: all")
    parser.add_argument("--candidates", type=at_least(2), default=8)
    parser.add_argument("--method", choices=get_args(Method), help="of the solver")
    parser.add_argument("--steps", type=at_least(1), help="of the solver")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the first noise")
    parser.add_argument("--refine", choices=REFINES, default="wiener")
    parser.add_argument("--batch", type=at_least(1), default=8)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file of every mixture's numbers")
    add_ranker_option(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the table."""
    options = read_options(argv)
    model = SAMAudio.from_pretrained(options.model, rankers=ranker_paths(options))
    solver = SolverChoice(
        method=options.method,
        steps=options.steps,
        seed=options.seed,
        candidates=options.candidates,
    )
    ranker = solver.ranker(model, options.prompt)
    assert ranker is not None  # there are at least two candidates
    suite = fixed_suite(options.bench, model.sample_rate, [options.prompt], options.limit)
    right = [one for one in suite.separations if one.right]
    refinement = None if options.refine == "none" else model.pipeline.refinement
    items = candidates_of(model, right, ranker, solver, refinement, options.batch)
    print(table(items))
    if options.out:
        write_json(options.out, [dataclasses.asdict(one) for one in items])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
