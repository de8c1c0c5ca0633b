"""Run by test_aot.py: plans one recipe for a slice and prints the figures as JSON.

This is no test file: libtpu's environment must be set before JAX is imported, as the command does.
"""

import dataclasses
import json
import sys

import sam_audio_jax.cli.plan  # noqa: F401  sets the environment, so it comes first
from sam_audio_jax import config, parallel
from sam_audio_jax.plan import chips, figures, programs


def main(argv: list[str]) -> None:
    topology, *flags = argv
    target = chips.parse(topology)
    cfg = programs.at_longest_bucket(config.from_cli(flags))
    mesh = parallel.make_mesh(cfg.mesh, target.devices())
    program = programs.train_program(cfg, mesh)
    values = figures.train_figures(cfg, target, program)
    values["all"] = [
        dataclasses.asdict(one) | {"of": sorted(one.dtypes), "dtypes": None}
        for one in program.collectives
    ]
    print(json.dumps(values))


if __name__ == "__main__":
    main(sys.argv[1:])
