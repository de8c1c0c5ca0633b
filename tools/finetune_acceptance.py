"""Fine-tunes a model on a few recordings of some captions, whole and by LoRA, and compares them.

`python -m tools.finetune_acceptance --source DIR --captions A B C --count 5 --out OUT [--FIELD V]`

DIR holds manifest.jsonl. `count` sources of each caption are trained on, all others are held out.
OUT/full and OUT/lora are what `sam-audio finetune` makes of them, with the same further options.
Prints the gains of both on the same held-out mixtures, and which share of the full gain LoRA
reaches. The exit status is 1 where no interval of a full gain excludes 0, or where LoRA reaches
less than 80 % of the mean full gain.
"""

import argparse
import pathlib
import sys
from typing import Any

from sam_audio_jax import config
from sam_audio_jax.cli import finetune
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data.source import read_objects
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.statistics import ALL, Interval, interval_text
from sam_audio_jax.files import check_writable, read_json, write_jsonl
from sam_audio_jax.finetune.split_sources import HELD_OUT, TRAIN, drawn_by

LEAST_SHARE = 0.8  # of the full gain


def manifest_lines(source: pathlib.Path, captions: list[str], count: int) -> list[dict[str, Any]]:
    """The recordings of some captions, with a split by source. Raises `UserError` for too few."""
    listed = [line for _, line in read_objects(source / "manifest.jsonl")]
    lines = []
    for caption in captions:
        chosen = [line for line in listed if line["caption"] == caption]
        sources = sorted({line["source_id"] for line in chosen}, key=drawn_by)
        if len(sources) <= count:
            raise UserError(
                f"{source} has {len(sources)} sources of {caption!r}, {count} + 1 needed"
            )
        trained = set(sources[:count])
        for line in chosen:
            part = TRAIN if line["source_id"] in trained else HELD_OUT
            path = str((source / line["path"]).resolve())
            lines.append(line | {"path": path, "split": part})
    return lines


def compared(full: pathlib.Path, lora: pathlib.Path) -> bool:
    """Prints the gains of both by prompt; returns whether they are as they should be."""
    gains = [
        {
            gain["prompt"]: Interval(**gain["difference"])
            for gain in read_json(folder / "gains.json")
            if (gain["column"], gain["refine"], gain["setting"]) == ("sisdri", "wiener", ALL)
        }
        for folder in (full, lora)
    ]
    print(f"{'prompt':<10} {'full':>24} {'LoRA':>24}  gain in SI-SDR, dB, 95 % interval")
    for prompt, whole in gains[0].items():
        cells = [interval_text(one, "{:+.2f}") for one in (whole, gains[1][prompt])]
        print(f"{prompt:<10} {cells[0]:>24} {cells[1]:>24}")
    means = [sum(gain.mean for gain in some.values()) / len(some) for some in gains]
    share = means[1] / means[0] if means[0] > 0 else 0.0
    improved = any(gain.n > 1 and gain.low > 0 for gain in gains[0].values())
    print(f"mean {means[0]:+.2f} and {means[1]:+.2f} dB: LoRA reaches {share:.0%} of the full gain")
    return improved and share >= LEAST_SHARE


@command
def main(argv: list[str]) -> int:
    """Lays the recordings out, trains twice, compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--captions", nargs="+", required=True)
    parser.add_argument("--count", type=at_least(1), default=5, help="sources of each to train on")
    parser.add_argument("--from", dest="base", default="tiny")
    parser.add_argument("--lora", type=at_least(1), default=4, metavar="RANK")
    parser.add_argument("--out", type=config.local_folder, required=True)
    options, flags = parser.parse_known_args(argv)
    check_writable(options.out, "--out")
    manifest = options.out / "stems.jsonl"
    write_jsonl(manifest, manifest_lines(options.source, options.captions, options.count))
    folders = {"full": [], "lora": ["--lora", str(options.lora)]}
    for name, lora in folders.items():
        own = [str(manifest), "--from", options.base, "--workdir", str(options.out / name)]
        if status := finetune.main([*own, *lora, *flags]):
            return status
    return 0 if compared(options.out / "full", options.out / "lora") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
