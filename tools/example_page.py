"""Writes a page with what a model makes of eight fixed mixtures, failures among them.

    python -m tools.example_page [MODEL] [--out docs/examples.html]

The mixtures are those of the embedded bench, whose recordings no training has used. Which of them
are shown follows from the scores by the rule in `CHOICES`: nobody has picked them.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.eval import baselines, distances, page, report
from sam_audio_jax.eval.prompting import SolverChoice, separate_batch
from sam_audio_jax.eval.recorded import Rendered
from sam_audio_jax.eval.suite import batches, fixed_suite
from sam_audio_jax.files import whole_file
from sam_audio_jax.infer.separate import SAMAudio


@dataclasses.dataclass(frozen=True)
class Choice:
    """The mixture at a place among those of a setting ("" for all), ordered by their scores."""

    kind: str  # of prompt
    setting: str
    place: str
    share: float  # 0: the worst, 1: the best

    def of(self, examples: Sequence[report.PlayedItem]) -> report.PlayedItem:
        """The example that is meant."""
        own = [
            one
            for one in examples
            if one.prompted.kind == self.kind
            and self.setting in ("", one.prompted.recorded.item.setting)
        ]
        ranked = sorted(own, key=lambda one: one.score or 0.0)
        chosen = ranked[round(self.share * (len(ranked) - 1))]
        return dataclasses.replace(chosen, place=f"{self.place}, prompted by {self.kind}")


CHOICES = (
    Choice("text", "sfx", "the best of the effects", 1.0),
    Choice("text", "sfx", "the middle one of the effects", 0.5),
    Choice("text", "sfx", "the worst of the effects", 0.0),
    Choice("text", "speech", "the middle one of speech", 0.5),
    Choice("text", "instr", "the middle one of the instruments", 0.5),
    Choice("text+span", "sfx", "the middle one of the effects", 0.5),
    Choice("text+span", "speaker", "the middle one of the speakers", 0.5),
    Choice("text+span", "", "the worst of all", 0.0),
)


def separated(model: SAMAudio, bench: str, batch: int) -> list[report.PlayedItem]:
    """Every mixture by the prompts of `CHOICES`, refined, with its SI-SDR improvement in dB."""
    kinds = tuple(dict.fromkeys(choice.kind for choice in CHOICES))
    suite = fixed_suite(bench, model.sample_rate, kinds, None)
    examples = []
    for group in batches([one for one in suite.separations if one.right], batch):
        loaded = [separation.load() for separation in group]
        for one in separate_batch(model, loaded, batch, SolverChoice()):
            recorded = one.prompted.recorded
            assert isinstance(recorded, Rendered)  # fixed mixtures all are
            raw = (one.target, one.residual)
            refined = baselines.masked(
                recorded.mixture,
                raw,
                recorded.sample_rate,
                model.pipeline.refinement,
                one.prompted.positive_spans() or (),
            )
            score = distances.si_sdr_improvement(
                *(w.astype(np.float64) for w in (refined[0], recorded.target, recorded.mixture))
            )
            examples.append(
                report.PlayedItem(one.prompted, "sisdri", float(score), "", raw, refined)
            )
    return examples


def body(name: str, bench: str, examples: Sequence[report.PlayedItem]) -> str:
    """The page's HTML below its title."""
    scenes = "".join(report.scene(choice.of(examples)) for choice in CHOICES)
    return (
        f"<h1>Eight separations by {name}</h1><p>The mixtures are of the bench “{bench}”: "
        "recordings that no training has used. Scores choose them, nobody's ear: of each group the "
        "best, the middle or the worst. “Refined” stems divide the mixture itself by a mask from "
        "the generated ones. The number is the improvement of the target's SI-SDR over the "
        f"mixture; below 0 the mixture was nearer to the true target.</p>{scenes}"
        "<p class=soft>Licences and authors of the recordings: "
        "sam_audio_jax/data/embedded/LICENSES.md.</p>"
    )


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="example_page")
    parser.add_argument("model", nargs="?", default="tiny", help="any checkpoint")
    parser.add_argument("--bench", default="embedded", help="folder of fixed mixtures")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/examples.html"))
    parser.add_argument("--batch", type=at_least(1), default=8)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Separates the bench and writes the page."""
    options = read_options(argv)
    model = SAMAudio.from_pretrained(options.model)
    examples = separated(model, options.bench, options.batch)
    name = pathlib.Path(options.model).name
    text = page.document(f"Examples of {name}", body(name, options.bench, examples))
    with whole_file(options.out) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
