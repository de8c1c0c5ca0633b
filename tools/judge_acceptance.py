"""Trains judges without one kind of degradation each, and says whether a judge is acceptable.

`python -m tools.judge_acceptance --train TABLE --valid TABLE --encoders JUDGE --out DIR`

The tables are folders of `tools.simulated_ratings`; --encoders is the judge of `train-judge
judge_tiny@encoders`, which has met no degradation. One judge is trained on all kinds, and for each
kind two without it, one of which sees no text. All runs share what the frozen encoders make of the
sounds. A second call with the same options goes on where the first was stopped.
DIR/acceptance.json and acceptance.md are the report (docs/scoring.md, "Accepting a judge"); further
flags go to `sam-audio train-judge judge_tiny`.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sam_audio_jax import config, parallel
from sam_audio_jax.cli import train_judge
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.convert.judge import load_judge
from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.data.ratings import RatedExamples, load_ratings
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.agreement import agreement
from sam_audio_jax.eval.file_stamps import contents_of
from sam_audio_jax.eval.judge_acceptance import (
    COMPARED,
    SimulatedTable,
    exchanged_prompts,
    left_out_kind,
    order_of_models,
)
from sam_audio_jax.eval.judge_in_training import table_scores
from sam_audio_jax.eval.simulated_ratings import OUTPUTS, TABLE
from sam_audio_jax.eval.statistics import Interval, interval_text
from sam_audio_jax.files import read_json, sha256_of, whole_file, write_json, write_jsonl
from sam_audio_jax.scorers.judge import AXES
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.train.judge_cache import open_judge_cache
from sam_audio_jax.train.judge_objective import split_judge
from sam_audio_jax.train.judge_start import with_tokenizer
from sam_audio_jax.workdir import Workdir
from tools.experiment import claim

NO_TEXT = "sound"  # the text of every row of a judge that sees none
ALL = "all kinds"


class Acceptance:
    """The runs and their scores, in one folder."""

    def __init__(self, options: argparse.Namespace, flags: list[str]):
        self.options, self.flags = options, flags
        self.out: pathlib.Path = options.out
        self.train, self.valid = (
            SimulatedTable.read(folder) for folder in (options.train, options.valid)
        )
        if lacking := [kind for kind in KINDS if not self.valid.is_mainly(kind).any()]:
            raise UserError(
                f"{options.valid} has no output of {', '.join(lacking)}, by which judges that were "
                "trained without are measured: make it with all --kinds"
            )
        tables = {
            name: [sha256_of(getattr(options, name) / file) for file in (TABLE, OUTPUTS)]
            for name in ("train", "valid")
        }
        encoders = {"encoders": options.encoders, "weights": contents_of(str(options.encoders))}
        rest = {"steps": options.steps, "flags": flags}
        claim(self.out, "acceptance-options.json", tables | encoders | rest)

    def scores(self, name: str, without: str = "", *, text: bool = True) -> np.ndarray:
        """The scores of the valid table by a judge that is trained for it, kept in a file."""
        folder = self.out / name.replace(" ", "-")
        if not (folder / "scores.json").exists():
            chosen = (
                ~self.train.has_kind(without) if without else np.ones(len(self.train.rows), bool)
            )
            self._table(self.train, folder / "train.jsonl", chosen, text)
            every = np.ones(len(self.valid.rows), bool)
            self._table(self.valid, folder / "valid.jsonl", every, text)
            self._run(folder)
            write_json(folder / "scores.json", self._score(folder), indent=None)
        return np.array(read_json(folder / "scores.json"))

    def _table(
        self,
        table: SimulatedTable,
        path: pathlib.Path,
        chosen: Bool[np.ndarray, " rows"],
        text: bool,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for row, keep in zip(table.rows, chosen, strict=True):
            if keep:
                paths = {key: str(table.folder / row[key]) for key in ("mixture", "separated")}
                rows.append(row | paths | ({} if text else {"text": NO_TEXT}))
        write_jsonl(path, rows)

    def _command(self, folder: pathlib.Path) -> list[str]:
        """The flags of `sam-audio train-judge` for a folder with its tables."""
        command = ["judge_tiny", "--workdir", str(folder / "run"), "--eval-every", "0"]
        command += ["--init-from", str(self.options.encoders), "--steps", str(self.options.steps)]
        command += ["--data.cache", str(self.out / "encoded"), "--checkpoint.best-metric", ""]
        return [*command, "--data.table", str(folder / "train.jsonl"), *self.flags]

    def _run(self, folder: pathlib.Path) -> None:
        """Trains in the folder, from its newest checkpoint on, to the last step."""
        run, steps = folder / "run", self._config(folder).steps
        if train_judge.main(self._command(folder)):
            raise UserError(f"the training in {run} failed")
        # One that a signal or a limit of time has stopped ends with status 0, too.
        if steps not in (kept := Workdir(run).steps()):
            last = max(kept, default=0)
            raise UserError(f"{run} is at step {last} of {steps}: the same call goes on")

    def _config(self, folder: pathlib.Path) -> JudgeTrainConfig:
        _, _, cfg = config.run_options(
            self._command(folder), "", command="train-judge", kind=JudgeTrainConfig
        )
        return cfg

    def _score(self, folder: pathlib.Path) -> list[list[float]]:
        """The scores of the folder's valid table by its judge, from its encoded sounds."""
        cfg = with_tokenizer(self._config(folder))
        judge, _ = load_judge(folder / "run" / "judge")
        pairs = load_ratings(str(folder / "valid.jsonl"), cfg.data)
        encoded = open_judge_cache(cfg, judge, pairs)
        examples = RatedExamples(cfg.data, pairs, cfg.judge, encoded)
        graph, frozen, params = split_judge(judge, cfg)
        mesh = parallel.make_mesh(cfg.mesh)
        return table_scores(graph, (frozen, params), examples, cfg.batch, mesh).tolist()

    def report(self) -> dict[str, Any]:
        """Everything that is measured; missing trainings run first."""
        every = self.scores(ALL)
        kinds = {}
        for kind in KINDS:
            full = self.scores(f"without {kind}", kind)
            textless = self.scores(f"without {kind} and text", kind, text=False)
            kinds[kind] = left_out_kind(self.valid, kind, full, textless)
        return {
            "train": {"rows": len(self.train.rows), "steps": self.options.steps},
            "valid": {"rows": len(self.valid.rows), "mixtures": len(set(self.valid.mixtures))},
            "left out": kinds,
            "better than both": {
                name: sum(one[name]["better than both"] for one in kinds.values())
                for name in COMPARED
            }
            | {"both axes": sum(one["better than both"] for one in kinds.values())},
            "all kinds": agreement_of(self.valid, every),
            "order of checkpoints": order_of_models(self.valid, every),
            "exchanged prompts": exchanged_prompts(self.valid, every),
        }


def agreement_of(
    table: SimulatedTable, scores: Float[np.ndarray, "rows axes"]
) -> dict[str, dict[str, float]]:
    """PCC of each axis with the truth by domain, of the judge that met all kinds."""
    names = [row["domain"] for row in table.rows], [row["system"] for row in table.rows]
    result: dict[str, dict[str, float]] = {axis: {} for axis in AXES}
    for one in agreement(scores, table.truth, AXES, *names):
        if (one.kind, one.level) == ("pcc", "utterance"):
            result[one.axis][one.domain] = round(one.value, 4)
    return result


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    training, held_out = report["train"], report["valid"]
    lines = [
        "# Acceptance of a judge",
        "",
        f"Trained on {training['rows']} rows in {training['steps']} updates, measured on "
        f"{held_out['rows']} rows of {held_out['mixtures']} held-out mixtures. Intervals are of "
        "95 % over mixtures.",
        "",
    ]
    for axis in COMPARED:
        names = ("judge", "no text", "energy ratio", "judge - no text", "judge - energy ratio")
        lines += [f"## PCC of {axis} on a kind that the training left out", ""]
        lines += ["| left out | " + " | ".join(names) + " | better than both |"]
        lines += ["|---" * (len(names) + 2) + "|"]
        for kind, one in report["left out"].items():
            cells = [_cell(one[axis][name]) for name in names]
            cells.append("yes" if one[axis]["better than both"] else "no")
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        lines += ["", f"Better than both: {report['better than both'][axis]} of 8.", ""]
    lines += ["## All kinds known: PCC by axis", "", "```"]
    lines += [json.dumps(report["all kinds"], indent=1), "```", ""]
    lines += ["## Order of checkpoints", ""]
    if (order := report["order of checkpoints"]) is None:
        lines += ["Fewer than three checkpoints are in the table.", ""]
    else:
        lines += [f"Kendall's tau {_cell(order['tau'])}", "", "| checkpoint | overall | SI-SDR |"]
        lines += ["|---|---|---|"]
        for name, one in sorted(order["models"].items(), key=lambda item: item[1]["si_sdr"]):
            lines.append(f"| {name} | {one['overall']:.2f} | {one['si_sdr']:.1f} dB |")
        lines.append("")
    lines += ["## Precision falls with the other sound's prompt", "", "| outputs | share |"]
    lines += ["|---|---|"]
    lines += [f"| {name} | {_cell(one)} |" for name, one in report["exchanged prompts"].items()]
    return "\n".join(lines) + "\n"


def _cell(one: dict[str, Any]) -> str:
    return f"{interval_text(Interval(**one))}, n = {one['n']}"


@command
def main(argv: list[str]) -> None:
    """Trains what is missing and writes the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    for name in ("train", "valid", "encoders", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=at_least(1), default=1000, help="of each training")
    options, flags = parser.parse_known_args(argv)
    for name in ("train", "valid", "encoders", "out"):
        setattr(options, name, getattr(options, name).resolve())
    report = Acceptance(options, flags).report()
    write_json(options.out / "acceptance.json", report)
    with whole_file(options.out / "acceptance.md") as part:
        part.write_text(page(report))
    print(page(report))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
