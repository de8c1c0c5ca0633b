"""Makes a table of ratings from recordings: degraded and real separations, scored by true stems.

`python -m tools.simulated_ratings --source DIR [--source DIR ...] --split train --out TABLE`

Each source DIR holds manifest.jsonl and, with songs, songs.jsonl. What is in the folder, and the
formulas: docs/scoring.md, "Simulated ratings". A second call goes on, with a larger --count it
extends, unless the recordings have changed. `--checkpoint NAME=PATH` adds the separations by a
model, prompted by text; a NAME is one model's.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys

from sam_audio_jax import SAMAudio, config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data.arrange import Samples
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.simulated_ratings import (
    TABLE,
    UNTOUCHED,
    SimulationConfig,
    separate_all,
    simulate,
)
from sam_audio_jax.files import read_jsonl
from sam_audio_jax.nn.fingerprint import fingerprint


@functools.lru_cache(maxsize=1)
def _model(path: str) -> SAMAudio:
    return SAMAudio.from_pretrained(path)


def system(path: str, refine: str | None) -> list[str | None]:
    """Where the model is, and what distinguishes its separations wherever it is."""
    place = str(pathlib.Path(path).resolve()) if pathlib.Path(path).exists() else path
    pipeline = _model(path).pipeline
    settings = {"level_db": pipeline.level_db} | dataclasses.asdict(pipeline.sampler)
    settings |= dataclasses.asdict(pipeline.refinement) if refine else {}
    words = ", ".join(f"{name} {value}" for name, value in settings.items())
    return [place, fingerprint(pipeline.networks), refine, words]


def separate(
    path: str, refine: str | None, mixture: Samples, sample_rate: int, text: str
) -> Samples:
    """The target of a mixture by the model at `path`, mono and at the mixture's rate."""
    model = _model(path)
    stems = model.separate(mixture, text, sample_rate=sample_rate, refine=refine)
    if stems.sample_rate != sample_rate:
        raise UserError(f"{path} separates at {stems.sample_rate} Hz, not at {sample_rate} Hz")
    return stems.target[: len(mixture)]


@command
def main(argv: list[str]) -> None:
    """Makes or extends the folder that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--split", default="train", help="of the recordings")
    parser.add_argument("--out", type=config.local_folder, required=True)
    parser.add_argument("--count", type=at_least(1), default=1000, help="mixtures")
    parser.add_argument("--outputs", type=at_least(1), default=5, help="of each mixture")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, UNTOUCHED])
    parser.add_argument("--no-exchange", action="store_true", help="own prompts alone")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="NAME=PATH", help="a model, by a name"
    )
    parser.add_argument("--checkpoint-count", type=at_least(1), default=100, help="its mixtures")
    parser.add_argument("--refine", choices=["wiener"], help="of the checkpoints' outputs")
    options = parser.parse_args(argv)
    manifests = tuple(str(folder / "manifest.jsonl") for folder in options.source)
    simulation = SimulationConfig(
        source=SourceConfig(manifests=manifests, split=options.split),
        outputs=options.outputs,
        kinds=tuple(options.kinds),
        exchange=not options.no_exchange,
        seed=options.seed,
    )
    named = [one.partition("=") for one in options.checkpoint]
    if wrong := [name for name, _, path in named if not path]:
        raise UserError(f"--checkpoint {wrong[0]} must be NAME=PATH")
    simulate(options.out, simulation, options.count)
    count = min(options.checkpoint_count, options.count)
    for name, _, path in named:
        separated = functools.partial(separate, path, options.refine)
        by = system(path, options.refine)
        separate_all(options.out, simulation, name, separated, count, by=by)
    mixtures = {row["mixture"] for row in read_jsonl(options.out / TABLE)}
    print(f"{options.out}: {len(mixtures)} mixtures, {len(named)} checkpoints")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
