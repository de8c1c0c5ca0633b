"""A run small enough to be trained, stopped and repeated many times: a linear map on noise."""

import dataclasses
import functools
import json
import pathlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import soundfile

from sam_audio_jax import parallel
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, RunConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import Step, TrainState, train_step
from tests.children import environment

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT_S = 300  # for one process to start and end; seconds are enough on a free machine

CONFIG = RunConfig(
    optim=OptimConfig(peak_lr=1e-2, warmup_steps=5),
    checkpoint=CheckpointConfig(every_steps=7, keep_last=2),
    batch=4,
    steps=30,
    eval_every=10,
    log_every=4,
    max_skipped=5,
)


class Batches:
    """Batch n is a function of n; `at[n]` is called when it is drawn, `bad` ones are NaN."""

    def __init__(self, at: dict[int, Callable[[], Any]] | None = None, bad: tuple[int, ...] = ()):
        self.count, self.at, self.bad = 0, at or {}, bad

    def __next__(self) -> dict[str, np.ndarray]:
        number, self.count = self.count, self.count + 1
        self.at.get(number, lambda: None)()
        x = np.random.default_rng(number).normal(size=(4, 8)).astype(np.float32)
        return {"x": x * np.float32("nan") if number in self.bad else x}

    def get_state(self) -> dict[str, Any]:
        return {"batches": self.count}

    def set_state(self, state: dict[str, Any]) -> None:
        self.count = state["batches"]


def loss(params, batch, key):
    noise = 0.01 * jax.random.normal(key, (8,))
    target = batch["x"][:, ::-1]
    value = jnp.mean(jnp.square(batch["x"] @ params["kernel"] + params["bias"] + noise - target))
    return value, {}


@functools.cache
def linear_step(optim: OptimConfig) -> tuple[optax.GradientTransformation, Step]:
    """Optimiser and step; the same objects for the same config, so that runs share a program."""
    tx = make_optimizer(optim, constant_schedule(optim), decay_mask)
    return tx, functools.partial(train_step, loss=loss, tx=tx, ema_decay=0.99)


@pytest.fixture
def train(tmp_path) -> Callable[..., TrainState]:
    """`train(name, batches=..., evaluate=..., **fields)` runs or resumes `tmp_path / name`."""

    def run(
        name: str,
        *,
        batches: Batches | None = None,
        evaluate: loop.Evaluate | None = None,
        profile: bool = False,
        **fields: Any,
    ) -> TrainState:
        config = dataclasses.replace(CONFIG, **fields)
        kernel = 0.1 * jax.random.normal(jax.random.key(0), (8, 8))
        params = {"kernel": kernel, "bias": jnp.zeros(8)}
        tx, step = linear_step(config.optim)
        key = jax.random.key(config.seed)
        return loop.train_and_evaluate(
            config,
            workdir=pathlib.Path(tmp_path / name),
            state=TrainState(jnp.int32(0), params, params, tx.init(params), key),
            step=step,
            batches=batches or Batches(),
            mesh=parallel.make_mesh(config.mesh),
            frames_per_step=4,
            evaluate=evaluate,
            profile=profile,
        )

    return run


@pytest.fixture
def batches() -> type[Batches]:
    return Batches


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Whether two trees are equal to the bit."""

    def equal(a: Any, b: Any) -> bool:
        leaves = jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)
        return all(jax.tree.leaves(leaves))

    return equal


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> pathlib.Path:
    """Lists eight recordings of 1 s, a tone and noise each."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(8):
        time_s = np.arange(800) / 800
        wave = 0.3 * np.sin(2 * np.pi * 30 * (number + 1) * time_s) + 0.05 * rng.normal(size=800)
        soundfile.write(folder / f"{number}.wav", wave, 800)
        lines.append(
            {
                "id": f"tone-{number}",
                "path": f"{number}.wav",
                "caption": f"tone {number}",
                "category": "sfx",
                "source_id": f"source-{number}",
                "duration": 1.0,
                "license": "CC0-1.0",
            }
        )
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@dataclasses.dataclass
class Processes:
    """The processes of one run, started together; `logs` hold what they print."""

    processes: list[subprocess.Popen]
    logs: list[pathlib.Path]

    def output(self, index: int) -> str:
        """What one of them printed, without the lines of the transport (Gloo)."""
        lines = re.split(r"[\r\n]+", self.logs[index].read_text())
        return "\n".join(line for line in lines if line and "[Gloo]" not in line)

    def statuses(self) -> list[int]:
        return [process.wait(TIMEOUT_S) for process in self.processes]

    def finish(self):
        statuses = self.statuses()
        assert not any(statuses), "\n".join(self.output(i) for i in range(len(self.logs)))[-3000:]

    def wait_for(self, path: pathlib.Path):
        """Waits until a file exists and is not empty."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (path.is_file() and path.stat().st_size):
            assert all(process.poll() is None for process in self.processes), self.output(0)[-3000:]
            assert time.monotonic() < deadline, f"{path} was never written"
            time.sleep(0.02)


@pytest.fixture
def train_processes(tmp_path):
    """`train_processes(name, *arguments, count=...)` starts a run in `tmp_path / name`.

    `only` starts these of the `count` processes; what still runs at the end is killed.
    """
    running: list[subprocess.Popen] = []

    def start(
        name: str,
        *arguments: str,
        count: int = 1,
        devices: int = 1,
        only: tuple[int, ...] | None = None,
        command: tuple[str, ...] = ("tests/train/run_linear.py",),
        port: int | None = None,
        **variables: str,
    ) -> Processes:
        port = port or _free_port()
        started = Processes([], [])
        for index in range(count) if only is None else only:
            log = tmp_path / f"{name}.{index}.log"
            rank = {
                "SAM_AUDIO_COORDINATOR": f"127.0.0.1:{port}",
                "SAM_AUDIO_PROCESSES": str(count),
                "SAM_AUDIO_PROCESS_ID": str(index),
            }
            with log.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *command, str(tmp_path / name), *arguments],
                    cwd=ROOT,
                    env=environment(
                        devices,
                        XDG_CACHE_HOME=str(tmp_path / "cache"),
                        **(rank if count > 1 else {}),
                        **variables,
                    ),
                    stdout=file,
                    stderr=file,
                )
            running.append(process)
            started.processes.append(process)
            started.logs.append(log)
        return started

    yield start
    for process in running:
        process.kill()
        process.wait()


def _free_port() -> int:
    """A port of this machine on which nobody listens now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return _free_port()
