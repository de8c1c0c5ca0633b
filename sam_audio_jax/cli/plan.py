"""Plans a training for a TPU slice without TPUs: whether it fits, and how fast it could be.

sam-audio plan large@v5e-256
sam-audio plan large --topology v5p:4x8x8 --search
sam-audio plan scorers --topology v5e:16x16

Compiles the real training step and the real sampler with the TPU's compiler (libtpu, no hardware).
The compiler makes its least effort, a few minutes of CPU; with --thorough that of a real run, which
takes about eight times as long: the programs need less memory, and the schedule is the real one.

`scorers` are the networks that score SAM Audio-Bench, compiled as they run: memory, items a second,
and the chips that score a run of the benchmark in ten minutes (docs/pods.md, "Scorers").
"""

import os
import sys

os.environ.update(  # before JAX is imported: libtpu only compiles, the CPU stays the only device
    # Beside the environment: inside it every JAX process would look for TPUs.
    [
        ("TPU_LIBRARY_PATH", path)
        for path in [f"{sys.prefix}/libtpu/libtpu/libtpu.so"]
        if os.path.isfile(path)
    ],
    JAX_PLATFORMS="cpu",
    JAX_ENABLE_COMPILATION_CACHE="false",  # which cannot read programs for absent devices back
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_ACCELERATOR_TYPE="v5litepod-8",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_STDERR_LOG_LEVEL="3",
    TPU_MIN_LOG_LEVEL="3",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import argparse
import dataclasses
import pathlib

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_writable
from sam_audio_jax.plan import chips, figures, scoring_run
from sam_audio_jax.plan.programs import at_longest_bucket
from sam_audio_jax.plan.scorer_calls import SCORER_CALLS, BenchmarkRun
from sam_audio_jax.train.config import TrainConfig

SCORERS = "scorers"  # in place of a config
RUN = BenchmarkRun()
RUN_FIELDS = ("items", "candidates")
TRAINING_FLAGS = ("search", "skip-sampler", "tries", "rows")
TRIES, ROWS = 6, 1


def read_options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the flags that are left for the config."""
    parser = config.ArgumentParser(
        __doc__,
        command="plan",
        epilog="Every other --FIELD VALUE overrides a field of the config.",
    )
    parser.add_argument(
        "config", metavar="CONFIG", help=f"the training that is planned, or `{SCORERS}`"
    )
    parser.add_argument("--topology", help="v5e:16x16, v5p-512, ...; default: the recipe's slice")
    parser.add_argument("--search", action="store_true", help="try meshes and remat, rank them")
    parser.add_argument(
        "--tries", type=at_least(1), help=f"layouts that --search compiles; default: {TRIES}"
    )
    parser.add_argument(
        "--rows", type=at_least(1), help=f"recordings per chip in the sampler; default: {ROWS}"
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="the compiler's effort of a real run: about 8 times the time, less memory needed",
    )
    parser.add_argument("--skip-sampler", action="store_true", help="plan the training step only")
    scorers = parser.add_argument_group(f"with `{SCORERS}`")
    scorers.add_argument(
        "--only", nargs="+", choices=list(SCORER_CALLS), metavar="NAME", help="some of them"
    )
    for name in RUN_FIELDS:
        scorers.add_argument(
            f"--{name}", type=at_least(1), metavar="N", help=f"default: {getattr(RUN, name)}"
        )
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file, too")
    return parser.parse_known_args(argv)


@command
def main(argv: list[str]) -> int:
    """Prints a plan or a search; the exit status is 1 where something does not fit."""
    options, flags = read_options(argv)
    if options.json:
        check_writable(options.json.parent, "--json, the folder")
    if options.config == SCORERS:
        return plan_scoring(options, flags)
    if wrong := [name for name in ("only", *RUN_FIELDS) if getattr(options, name) is not None]:
        raise UserError(f"--{wrong[0]} is for `{SCORERS}`, not for the training {options.config!r}")
    check_together(options)
    recipe = options.config.rpartition("@")[2].removeprefix("finetune-")
    target = chips.parse(options.topology or recipe)
    cfg = at_longest_bucket(config.from_cli([options.config, *flags], TrainConfig))
    if options.search:
        result = figures.search(
            cfg, target, tries=options.tries or TRIES, thorough=options.thorough
        )
    else:
        rows = 0 if options.skip_sampler else options.rows or ROWS
        result = figures.plan(cfg, target, rows=rows, thorough=options.thorough)
    if options.json:
        figures.write(options.json, result)
    return 0 if figures.fits(result) else 1


def check_together(options: argparse.Namespace) -> None:
    """Raises `UserError` for options that would have no effect beside the others."""
    if options.tries is not None and not options.search:
        raise UserError("--tries has no effect without --search")
    if options.search and (options.rows is not None or options.skip_sampler):
        name = "--skip-sampler" if options.skip_sampler else "--rows"
        raise UserError(f"{name} has no effect with --search, which plans no sampler")
    if options.skip_sampler and options.rows is not None:
        raise UserError("--rows has no effect with --skip-sampler")


def plan_scoring(options: argparse.Namespace, flags: list[str]) -> int:
    """Plans the scorers; the exit status is 1 where one does not fit."""
    if flags:
        raise UserError(f"unrecognized arguments for `{SCORERS}`: {' '.join(flags)}")
    if wrong := [
        f"--{name}" for name in TRAINING_FLAGS if getattr(options, name.replace("-", "_"))
    ]:
        raise UserError(f"{wrong[0]} is for trainings, not for `{SCORERS}`")
    if not options.topology:
        raise UserError(f"--topology is needed for `{SCORERS}`, like v5e:16x16")
    values = {name: getattr(options, name) for name in RUN_FIELDS}
    run = dataclasses.replace(RUN, **{name: n for name, n in values.items() if n is not None})
    result = scoring_run.plan_scorers(
        options.only or list(SCORER_CALLS),
        chips.parse(options.topology),
        run,
        thorough=options.thorough,
    )
    if options.json:
        figures.write(options.json, result)
    return 0 if result["fits"] else 1
