"""Measures a separator: `sam-audio evaluate --checkpoint tiny --bench embedded --out DIR`.

Writes DIR/report.html (open it in a browser), DIR/results.json and DIR/audio/, whole or not at all.
With CONFIG the workdir must be of that config, which also names the bench. A call that was killed
is continued by the same one. Any number of processes may share the work, each with its own
--process I --processes N and the same DIR; they need not meet, and the last one to end writes the
results.
"""

import argparse
import pathlib
import sys
from typing import Any, get_args

from sam_audio_jax import config
from sam_audio_jax.cli.command import (
    add_mesh_options,
    add_process_options,
    at_least,
    command,
    mesh_of,
    process_rank,
)
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import ABSENT_MEDIAN, evaluate_model
from sam_audio_jax.eval.mixtures import folder_of
from sam_audio_jax.eval.prompting import KINDS, PROMPTS
from sam_audio_jax.eval.score_store import remove_remains
from sam_audio_jax.eval.scoring import REWORDED
from sam_audio_jax.eval.summary import summary
from sam_audio_jax.files import check_writable
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.separator.flow import Method
from sam_audio_jax.workdir import Workdir


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="evaluate")
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="of the training run")
    parser.add_argument("--workdir", help="of a training run; its newest checkpoint is measured")
    parser.add_argument(
        "--checkpoint", help="shipped name, workdir or step, upstream folder, HF id"
    )
    parser.add_argument("--bench", help="embedded, or a folder with manifest and mixtures.jsonl")
    parser.add_argument("--out", required=True, help="folder to make; must not exist")
    parser.add_argument(
        "--prompts",
        nargs="+",
        default=PROMPTS,
        choices=KINDS,
        help="those after text+span need a bench that lists them (docs/data.md, 'Fixed mixtures')",
    )
    parser.add_argument("--method", choices=get_args(Method), help="of the solver")
    parser.add_argument("--steps", type=at_least(1), help="of the solver")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the noise")
    parser.add_argument("--limit", type=at_least(1), help="so many items, spread over the settings")
    parser.add_argument(
        "--listen", type=at_least(0), default=2, help="items of each setting to listen to"
    )
    add_process_options(parser)
    add_mesh_options(parser)
    options = parser.parse_args(argv)
    if bool(options.workdir) == bool(options.checkpoint):
        raise UserError("give either --workdir DIR or --checkpoint PATH")
    return options


def check_workdir(workdir: pathlib.Path, cfg: Any | None) -> None:
    """Raises `UserError` for a folder that is no workdir, or is of another config than `cfg`."""
    saved = Workdir(workdir).read_config()["config"]
    if cfg is not None and (differing := config.differences(saved, cfg)):
        raise UserError(f"{workdir} is of another config: {'; '.join(differing)}")


@command
def main(argv: list[str]) -> None:
    """Evaluates one model and prints the means; what can be refused is refused before loading."""
    options = read_options(argv)
    cfg = config.from_cli([options.config]) if options.config else None
    if options.workdir:
        check_workdir(pathlib.Path(options.workdir), cfg)
    out = pathlib.Path(options.out)
    if out.exists():
        if (out / "results.json").is_file():
            remove_remains(out)
        raise UserError(f"--out {out} exists; name a folder that does not")
    check_writable(out, "--out")
    bench = options.bench or getattr(cfg, "eval_bench", "") or "embedded"
    folder_of(bench)
    name = inputs.check_checkpoint(options.workdir or options.checkpoint)
    rank = process_rank(options)
    mesh = mesh_of(options, lambda: parameter_bytes(name))
    scores = evaluate_model(
        SAMAudio.from_pretrained(name, mesh=mesh),
        bench,
        out,
        prompts=options.prompts,
        method=options.method,
        steps=options.steps,
        seed=options.seed,
        limit=options.limit,
        listen=options.listen,
        workdir=options.workdir,
        rank=rank,
    )
    if scores is None:
        print(
            f"process {rank.index} of {rank.count} is done; the last one writes {out}",
            file=sys.stderr,
        )
        return
    print(summary(out / "results.json"))
    for name, value in scores.items():
        column, refine, setting, *kind = name.split("/")
        if (refine, setting) != ("wiener", "all"):
            continue
        if column == "following":
            print(f"  follows {kind[0]:<10} {value:6.0%} of two-source items")
        elif column == REWORDED:
            print(f"  {kind[0]:<18} {round(value, 1) + 0.0:+6.1f} dB against the plain caption")
        elif column == ABSENT_MEDIAN:
            print(f"  {'absent sound':<18} {value:+6.1f} dB of the mixture in the target (median)")
    print(f"report: {out / 'report.html'}")
