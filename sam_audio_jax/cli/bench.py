"""Measures how fast the parts are on this machine: `sam-audio bench [NAME ...]` (default: all).

Every part runs in a process of its own, so that its peak memory is its own; a figure is the median
of --runs runs after one that compiles. With `--against torch` (the extra `[bench]`) the same
arithmetic runs in PyTorch, in turns with ours in one process, and the results are compared; both
peaks are of processes that run one side alone.

`data` is how many training examples one core makes, from files, TFDS and latents. `dtypes` is not
about time: how far bfloat16 and int8 lead away from float32, for `small` at full size.

`scorers` are all scorers at their published sizes with random weights, each also by its name. With
`--against torch` the originals run with the same weights, where their packages are installed, in
processes of their own: no process holds more than one full-size network.
"""

import argparse
import dataclasses
import json
import subprocess
import sys

from sam_audio_jax import config
from sam_audio_jax.bench import data_engine, dtypes, timing
from sam_audio_jax.bench.parts import PARTS, Forward, Measurement
from sam_audio_jax.bench.scorer_parts import SCORERS, ScorerForward
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError

TABLES = {"data": data_engine.rows, "dtypes": dtypes.rows}  # parts with a table of their own
GROUP = "scorers"  # the name of all scorers together
MEASURED = {**PARTS, **SCORERS}
NAMES = (*PARTS, *TABLES, GROUP, *SCORERS)


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
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: the CPU time of the process, where other work is on the machine",
    )
    parser.add_argument("--side", choices=["jax", "torch", "both"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        raise UserError(f"no part {unknown[0]!r}; there are {', '.join(NAMES)}")
    options.names = [name for one in options.names for name in (SCORERS if one == GROUP else [one])]
    compared = [name for name, part in PARTS.items() if isinstance(part.make, Forward)]
    known = (*compared, *SCORERS)
    if options.against and (alone := [n for n in options.names if n not in known]):
        raise UserError(f"{alone[0]} has no part in PyTorch; there are {', '.join(known)}")
    options.names = options.names or (compared if options.against else list(PARTS))
    return options


@command
def main(argv: list[str]) -> int:
    """Prints a table with one row a part, each measured in a process of its own."""
    options = read_options(argv)
    if options.side:
        part = MEASURED[options.names[0]]
        measured = timing.measure(part, options.runs, options.side, options.clock)
        print(json.dumps(dataclasses.asdict(measured)))
        return 0
    runs = f"median (and range) of {options.runs} runs"
    print(f"{timing.machine()}; {runs}, float32, batch 1 unless a row says more\n")
    print(timing.header(against=bool(options.against), clock=options.clock), flush=True)
    for name in options.names:
        for line in TABLES[name]() if name in TABLES else [row_of(name, options)]:
            print(line, flush=True)
    return 0


def row_of(name: str, options: argparse.Namespace) -> str:
    """Measures one part, and its PyTorch side where that is asked for; returns its row."""
    part = MEASURED[name]

    def side(side: timing.Side) -> timing.Measured:
        return measure_in_process(name, options.runs, side, options.clock)

    if not options.against:
        return timing.row(part, side("jax"))
    if name in PARTS:
        return timing.row_against(part, side("both"), side("jax"), side("torch"))
    if reason := no_original(part):
        return timing.row_without(part, side("jax"), reason)
    ours, theirs = side("jax"), side("torch")
    return timing.row_against(part, timing.joined(ours, theirs), ours, theirs)


def no_original(part: Measurement) -> str:
    """Why a scorer has no PyTorch side here; "" if it has one."""
    if not isinstance(part.make, ScorerForward):
        return "none: no network"
    return f"needs {', '.join(part.make.missing)}" if part.make.missing else ""


def measure_in_process(
    name: str, runs: int, side: timing.Side, clock: timing.Clock
) -> timing.Measured:
    """Measures one part in a process of its own. Raises `UserError` with that process's message."""
    call = [sys.executable, "-m", "sam_audio_jax.cli", "bench", name, "--side", side]
    done = subprocess.run(
        [*call, "--runs", str(runs), "--clock", clock],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
    )
    if done.returncode:
        raise UserError(f"{name} was not measured: its process ended with {done.returncode}")
    return timing.Measured(**json.loads(done.stdout.splitlines()[-1]))
