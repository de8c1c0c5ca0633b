"""Measures how fast the parts are on this machine: `sam-audio bench [NAME ...]` (default: all).

Every part runs in a process of its own, so that its peak memory is its own; a figure is the median
of --runs runs after one that compiles. With `--against torch` (the extra `[bench]`) the same
arithmetic runs in PyTorch, in turns with ours in one process, and the results are compared; both
peaks are of processes that run one side alone.

`data` is how many training examples one core makes, from files, TFDS and latents. `dtypes` is not
about time: how far bfloat16 leads away from float32, for `small` at full size.
"""

import argparse
import dataclasses
import json
import subprocess
import sys

from sam_audio_jax import config
from sam_audio_jax.bench import data_engine, dtypes, timing
from sam_audio_jax.bench.parts import PARTS, Forward
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError

TABLES = {"data": data_engine.rows, "dtypes": dtypes.rows}  # parts with a table of their own
NAMES = (*PARTS, *TABLES)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--runs", type=at_least(1), default=5, help="of each part, after one to compile"
    )
    parser.add_argument(
        "--against", choices=["torch"], help="run the same arithmetic in PyTorch beside ours"
    )
    parser.add_argument("--side", choices=["jax", "torch", "both"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        raise UserError(f"no part {unknown[0]!r}; there are {', '.join(NAMES)}")
    compared = [name for name, part in PARTS.items() if isinstance(part.make, Forward)]
    if options.against and (alone := [n for n in options.names if n not in compared]):
        raise UserError(f"{alone[0]} has no part in PyTorch; there are {', '.join(compared)}")
    options.names = options.names or (compared if options.against else list(PARTS))
    return options


@command
def main(argv: list[str]) -> int:
    """Prints a table with one row a part, each measured in a process of its own."""
    options = read_options(argv)
    if options.side:
        measured = timing.measure(PARTS[options.names[0]], options.runs, options.side)
        print(json.dumps(dataclasses.asdict(measured)))
        return 0
    runs = f"median (and range) of {options.runs} runs"
    print(f"{timing.machine()}; {runs}, float32, batch 1\n")
    print(timing.header(against=bool(options.against)), flush=True)
    for name in options.names:
        if name in TABLES:
            for line in TABLES[name]():
                print(line, flush=True)
        elif options.against:
            sides = [measure_in_process(name, options.runs, x) for x in ("both", "jax", "torch")]
            print(timing.row_against(PARTS[name], *sides), flush=True)
        else:
            measured = measure_in_process(name, options.runs, "jax")
            print(timing.row(PARTS[name], measured), flush=True)
    return 0


def measure_in_process(name: str, runs: int, side: timing.Side) -> timing.Measured:
    """Measures one part in a process of its own. Raises `UserError` with that process's message."""
    call = [sys.executable, "-m", "sam_audio_jax.cli", "bench", name, "--side", side]
    done = subprocess.run(
        [*call, "--runs", str(runs)], check=False, text=True, stdout=subprocess.PIPE
    )
    if done.returncode:
        raise UserError(f"{name} was not measured: its process ended with {done.returncode}")
    return timing.Measured(**json.loads(done.stdout.splitlines()[-1]))
