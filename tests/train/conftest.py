"""A run small enough to be trained, stopped and repeated many times: a linear map on noise."""

import dataclasses
import functools
import json
import os
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
import pytest
import soundfile

from sam_audio_jax import parallel
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, RunConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import TrainState, train_step

ROOT = pathlib.Path(__file__).parent.parent.parent
PATIENCE_S = 300  # for one process to start and end; seconds are enough on a free machine

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
        self.given, self.at, self.bad = 0, at or {}, bad

    def __next__(self) -> dict[str, np.ndarray]:
        number, self.given = self.given, self.given + 1
        self.at.get(number, lambda: None)()
        x = np.random.default_rng(number).normal(size=(4, 8)).astype(np.float32)
        return {"x": x * np.float32("nan") if number in self.bad else x}

    def get_state(self) -> dict[str, Any]:
        return {"batches": self.given}

    def set_state(self, state: dict[str, Any]) -> None:
        self.given = state["batches"]


def loss(params, batch, key):
    noise = 0.01 * jax.random.normal(key, (8,))
    wanted = batch["x"][:, ::-1]
    value = jnp.mean(jnp.square(batch["x"] @ params["kernel"] + params["bias"] + noise - wanted))
    return value, {}


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
        tx = make_optimizer(config.optim, constant_schedule(config.optim), decay_mask)
        key = jax.random.key(config.seed)
        return loop.train_and_evaluate(
            config,
            workdir=pathlib.Path(tmp_path / name),
            state=TrainState(jnp.int32(0), params, params, tx.init(params), key),
            step=functools.partial(train_step, loss=loss, tx=tx, ema_decay=0.99),
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


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Whether two trees are equal to the bit."""

    def equal(a: Any, b: Any) -> bool:
        leaves = jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)
        return all(jax.tree.leaves(leaves))

    return equal


@pytest.fixture
def manifest(tmp_path):
    """Eight seconds of tones and noises."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(8):
        time_s = np.arange(800) / 800
        wave = 0.3 * np.sin(2 * np.pi * 30 * (number + 1) * time_s) + 0.05 * rng.normal(size=800)
        soundfile.write(tmp_path / f"{number}.wav", wave, 800)
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
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@dataclasses.dataclass
class Processes:
    """Of one run, started together; `logs` are what they print."""

    processes: list[subprocess.Popen]
    logs: list[pathlib.Path]

    def said(self, index: int) -> str:
        """All but the chatter of the transport."""
        lines = re.split(r"[\r\n]+", self.logs[index].read_text())
        return "\n".join(line for line in lines if line and "[Gloo]" not in line)

    def statuses(self) -> list[int]:
        return [process.wait(PATIENCE_S) for process in self.processes]

    def finish(self):
        statuses = self.statuses()
        assert not any(statuses), "\n".join(self.said(i) for i in range(len(self.logs)))[-3000:]

    def wait_for(self, path: pathlib.Path):
        """Until a file is there and not empty."""
        give_up = time.monotonic() + PATIENCE_S
        while not (path.is_file() and path.stat().st_size):
            assert all(process.poll() is None for process in self.processes), self.said(0)[-3000:]
            assert time.monotonic() < give_up, f"{path} never came"
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
        door: tuple[str, ...] = ("tests/train/run_linear.py",),
        port: int | None = None,
        **environment: str,
    ) -> Processes:
        port = port or _free_port()
        started = Processes([], [])
        for index in range(count) if only is None else only:
            log = tmp_path / f"{name}.{index}.log"
            told = {
                "SAM_AUDIO_COORDINATOR": f"127.0.0.1:{port}",
                "SAM_AUDIO_PROCESSES": str(count),
                "SAM_AUDIO_PROCESS_ID": str(index),
            }
            with log.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *door, str(tmp_path / name), *arguments],
                    cwd=ROOT,
                    env={
                        "PATH": os.environ["PATH"],
                        "PYTHONPATH": ".",
                        "JAX_PLATFORMS": "cpu",
                        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
                        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
                        "XDG_CACHE_HOME": str(tmp_path / "cache"),
                        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                        **(told if count > 1 else {}),
                        **environment,
                    },
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
    """That nobody listens on now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    return _free_port()
