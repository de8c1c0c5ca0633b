"""The run of conftest.py as a process of its own, for test_failures.py and test_processes.py.

python tests/train/run_linear.py WORKDIR STEPS [--mesh data,fsdp,tensor,sequence]
    [--slow SECONDS] [--evaluate] [--raise-at STEP] [--max-minutes M] [--every STEPS] [--blind STEP]
"""

import argparse
import dataclasses
import pathlib
import shutil
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from sam_audio_jax import distributed, parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import CheckpointConfig
from sam_audio_jax.train.step import TrainState
from tests.train.conftest import CONFIG, linear_step

BATCH = 8


class Batches:
    """The rows of this process of batch n, which is a function of n alone."""

    def __init__(self, rows: tuple[int, int], options: argparse.Namespace):
        (self.index, self.count), self.number, self.options = rows, 0, options

    def __next__(self) -> dict[str, np.ndarray]:
        number, self.number = self.number, self.number + 1
        time.sleep(self.options.slow)
        if number == self.options.raise_at and jax.process_index() == 1:
            raise UserError("this host has no data")
        x = np.random.default_rng(number).normal(size=(BATCH, 8)).astype(np.float32)
        return {"x": np.split(x, self.count)[self.index]}

    def get_state(self) -> dict[str, int]:
        return {"batches": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        self.number = state["batches"]


def damage_on_process_1(step: int) -> None:
    """Lets process 1 load a damaged copy of the checkpoint of this step."""
    load = ocp.load_checkpointables

    def broken(path: str, like: dict) -> dict:
        if pathlib.Path(path).name == str(step) and jax.process_index() == 1:
            copy = pathlib.Path(tempfile.mkdtemp()) / "copy"
            shutil.copytree(path, copy)
            (copy / "params" / "manifest.ocdbt").write_bytes(b"")
            path = str(copy)
        return load(path, like)

    ocp.load_checkpointables = broken


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--mesh", default="1,-1,1,1")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--raise-at", type=int, default=-1)
    parser.add_argument("--max-minutes", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--blind", type=int, default=-1)
    options = parser.parse_args(argv)
    if options.blind >= 0:
        damage_on_process_1(options.blind)
    try:
        distributed.initialize()
        sizes = parallel.MeshConfig(
            **dict(zip(parallel.MESH_AXES, map(int, options.mesh.split(",")), strict=True))
        )
        mesh = parallel.make_mesh(sizes)
        config = dataclasses.replace(
            CONFIG,
            mesh=sizes,
            batch=BATCH,
            steps=options.steps,
            log_every=1,
            eval_every=4,
            max_minutes=options.max_minutes,
            checkpoint=CheckpointConfig(every_steps=options.every, every_minutes=0.0),
        )
        kernel = 0.1 * jax.random.normal(jax.random.key(0), (8, 8))
        params = {"kernel": kernel, "bias": jnp.zeros(8)}
        shardings = {
            "kernel": jax.NamedSharding(mesh, jax.P("fsdp", "tensor")),
            "bias": parallel.replicated(mesh),
        }
        params = jax.jit(lambda: params, out_shardings=shardings)()
        tx, step = linear_step(config.optim)
        moments = parallel.optimizer_shardings(tx, params, shardings, mesh)

        def evaluate(state: TrainState, step: int, ended: bool) -> dict[str, float]:
            ema = parallel.gather_to_local(state.ema) if jax.process_count() > 1 else state.ema
            return {"norm": float(jnp.linalg.norm(ema["kernel"])), "host": jax.process_index()}

        loop.train_and_evaluate(
            config,
            workdir=options.workdir,
            state=TrainState(
                jnp.int32(0),
                params,
                jax.tree.map(jnp.copy, params),
                jax.jit(tx.init, out_shardings=moments)(params),
                jax.random.key(config.seed),
            ),
            step=step,
            batches=Batches(parallel.process_rows(mesh), options),
            mesh=mesh,
            frames_per_step=BATCH,
            evaluate=evaluate if options.evaluate else None,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(distributed.run_main(main, sys.argv[1:]))
