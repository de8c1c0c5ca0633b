"""Run by test_aot.py: plans one recipe for a slice and prints the figures as JSON.

Not a test file: libtpu's environment has to be set before JAX is there, as launch/plan.py does.
"""

import dataclasses
import json
import pathlib
import runpy
import sys

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "plan.py"
door = runpy.run_path(str(LAUNCH))

from sam_audio_jax import config, parallel  # noqa: E402
from sam_audio_jax.plan import chips, programs, report  # noqa: E402


def main(argv: list[str]) -> None:
    topology, *rest = argv
    target = chips.parse(topology)
    cfg = programs.fixed(config.from_cli(rest))
    mesh = parallel.make_mesh(cfg.mesh, target.devices())
    program = programs.train_program(cfg, mesh)
    figures = report.train_figures(cfg, target, program)
    figures["all"] = [
        dataclasses.asdict(one) | {"of": sorted(one.dtypes), "dtypes": None}
        for one in program.collectives
    ]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
