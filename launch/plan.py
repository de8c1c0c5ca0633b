"""What a recipe would do on a TPU slice that is not there: does it fit, how fast could it be.

python launch/plan.py configs/large.py@v5e-256
python launch/plan.py configs/large.py --topology v5p:4x8x8 --search

Compiles the real train step and the real sampler with the TPU's compiler (libtpu, no hardware).
Takes minutes of CPU; --fast asks the compiler for less effort, which needs more memory on the chip.
"""

import os
import sys

os.environ.update(  # before JAX is there: libtpu only compiles, the CPU stays the only device
    # Beside the environment: inside it every JAX process would look for TPUs.
    [
        ("TPU_LIBRARY_PATH", path)
        for path in [f"{sys.prefix}/libtpu/libtpu/libtpu.so"]
        if os.path.isfile(path)
    ],
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    TPU_ACCELERATOR_TYPE="v5litepod-8",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_STDERR_LOG_LEVEL="3",
    TPU_MIN_LOG_LEVEL="3",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import argparse
import pathlib

from sam_audio_jax import config
from sam_audio_jax.errors import UserError
from sam_audio_jax.plan import chips, report
from sam_audio_jax.plan.programs import at_longest_bucket
from sam_audio_jax.train.config import TrainConfig


def options(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = config.ArgumentParser(
        __doc__, epilog="Every other --FIELD VALUE overrides a field of the config."
    )
    parser.add_argument("config", metavar="CONFIG.py", help="the training that is planned")
    parser.add_argument("--topology", help="v5e:16x16, v5p-512, ...; default: the recipe's slice")
    parser.add_argument("--search", action="store_true", help="try meshes and remat, rank them")
    parser.add_argument("--tries", type=int, default=6, help="layouts that --search compiles")
    parser.add_argument("--rows", type=int, default=1, help="recordings per chip in the sampler")
    parser.add_argument("--fast", action="store_true", help="less effort of the compiler")
    parser.add_argument("--skip-sampler", action="store_true", help="plan the train step only")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file, too")
    return parser.parse_known_args(argv)


def main(argv: list[str]) -> int:
    try:
        given, flags = options(argv)
        if given.tries < 1 or given.rows < 1:
            raise UserError(f"--tries {given.tries} and --rows {given.rows} must be 1 or more")
        slice_name = given.topology or given.config.rpartition("@")[2].removeprefix("finetune-")
        target = chips.parse(slice_name)
        cfg = config.from_cli([given.config, *flags])
        if not isinstance(cfg, TrainConfig):
            raise UserError(f"{given.config} holds a {type(cfg).__name__}, not a TrainConfig")
        cfg = at_longest_bucket(cfg)
        if given.search:
            made = report.search(cfg, target, tries=given.tries, fast=given.fast)
        else:
            rows = 0 if given.skip_sampler else given.rows
            made = report.plan(cfg, target, rows=rows, fast=given.fast)
        if given.json:
            report.write(given.json, made)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if report.fits(made) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
