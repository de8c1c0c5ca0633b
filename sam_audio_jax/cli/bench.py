"""Measures how fast the parts are on this machine: `sam-audio bench [NAME ...]` (default: all).

Every part runs in a process of its own, so that its peak memory is its own; a figure is the median
of --runs runs after one that compiles. Reference: the PyTorch implementation on 2 threads of
another machine, so read the ratio as a rough one.

`dtypes` is not about time: how far bfloat16 leads away from float32, for `small` at full size.
"""

import argparse
import subprocess
import sys

from sam_audio_jax import config
from sam_audio_jax.bench import dtypes, timing
from sam_audio_jax.bench.parts import PARTS
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError

NAMES = (*PARTS, "dtypes")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--runs", type=at_least(1), default=5, help="of each part, after one to compile"
    )
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        raise UserError(f"no part {unknown[0]!r}; there are {', '.join(NAMES)}")
    return options


@command
def main(argv: list[str]) -> int:
    """Prints a table with one row a part, each measured in a process of its own."""
    options = read_options(argv)
    if options.alone:
        measure_here(options.names[0], options.runs)
        return 0
    runs = f"median (and range) of {options.runs} runs"
    print(f"{timing.machine()}; {runs}, float32, batch 1\n\n{timing.header()}", flush=True)
    for name in options.names or PARTS:
        if status := measure_in_process(name, options.runs):
            return status
    return 0


def measure_here(name: str, runs: int) -> None:
    """Measures one part in this process and prints its row, or the table of `dtypes`."""
    if name == "dtypes":
        for line in dtypes.rows():
            print(line, flush=True)
    else:
        times = timing.run_times(PARTS[name], runs)
        print(timing.row(PARTS[name], times, timing.peak_gib()), flush=True)


def measure_in_process(name: str, runs: int) -> int:
    """Measures one part in a process of its own, which prints; returns its exit status."""
    call = [sys.executable, "-m", "sam_audio_jax.cli", "bench", name, "--alone"]
    return subprocess.run([*call, "--runs", str(runs)], check=False).returncode
