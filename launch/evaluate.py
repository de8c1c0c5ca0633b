"""Measures a separator: `python launch/evaluate.py --checkpoint tiny --bench embedded --out DIR`.

Writes DIR/report.html (open it in a browser), DIR/results.json and DIR/audio/, whole or not at all.
With CONFIG.py the workdir must be of that config, which also names the bench.
"""

import argparse
import pathlib
import sys

from sam_audio_jax import SAMAudio, config
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.bench import evaluate_model
from sam_audio_jax.eval.mixtures import folder_of
from sam_audio_jax.eval.solve import PROMPTS
from sam_audio_jax.eval.summary import summary
from sam_audio_jax.workdir import Workdir


def options(argv: list[str]) -> argparse.Namespace:
    parser = config.ArgumentParser(__doc__)
    parser.add_argument("config", nargs="?", metavar="CONFIG.py", help="of the training run")
    parser.add_argument("--workdir", help="of a training run; its newest checkpoint is measured")
    parser.add_argument(
        "--checkpoint", help="shipped name, workdir or step, upstream folder, HF id"
    )
    parser.add_argument("--bench", help="embedded, or a folder with manifest and mixtures.jsonl")
    parser.add_argument("--out", required=True, help="folder to make; must not exist")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, choices=PROMPTS)
    parser.add_argument("--method", help="of the solver: midpoint, euler, heun")
    parser.add_argument("--steps", type=int, help="of the solver")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="so many items, spread over the settings")
    parser.add_argument("--listen", type=int, default=2, help="items of each setting to listen to")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    try:
        given = options(argv)
        cfg = config.from_cli([given.config]) if given.config else None
        if bool(given.workdir) == bool(given.checkpoint):
            raise UserError("give either --workdir DIR or --checkpoint PATH")
        if cfg is not None and given.workdir:
            saved = Workdir(pathlib.Path(given.workdir)).read_config()["config"]
            if differing := config.differences(saved, cfg):
                raise UserError(f"{given.workdir} is of another config: {'; '.join(differing)}")
        if pathlib.Path(given.out).exists():
            raise UserError(f"--out {given.out} exists; name a folder that does not")
        bench = given.bench or getattr(cfg, "eval_bench", "") or "embedded"
        folder_of(bench)  # a bad name is told before the networks are loaded
        scores = evaluate_model(
            SAMAudio.from_pretrained(given.workdir or given.checkpoint),
            bench,
            given.out,
            prompts=given.prompts,
            method=given.method,
            steps=given.steps,
            seed=given.seed,
            limit=given.limit,
            listen=given.listen,
            workdir=given.workdir,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary(pathlib.Path(given.out) / "results.json"))
    for name in (name for name in scores if name.startswith("following/wiener/all/")):
        print(f"  follows {name.split('/')[-1]:<10} {scores[name]:6.0%} of two-source items")
    print(f"report: {pathlib.Path(given.out) / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
