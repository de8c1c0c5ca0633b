"""A run small enough to be trained, stopped and repeated many times: a linear map on noise."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import parallel
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, RunConfig
from sam_audio_jax.train.optimizer import make_optimizer
from sam_audio_jax.train.step import TrainState, train_step

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
        **fields: Any,
    ) -> TrainState:
        config = dataclasses.replace(CONFIG, **fields)
        kernel = 0.1 * jax.random.normal(jax.random.key(0), (8, 8))
        params = {"kernel": kernel, "bias": jnp.zeros(8)}
        tx = make_optimizer(config.optim)
        key = jax.random.key(config.seed)
        return loop.run(
            config,
            workdir=pathlib.Path(tmp_path / name),
            state=TrainState(jnp.int32(0), params, params, tx.init(params), key),
            step=functools.partial(train_step, loss=loss, tx=tx, ema_decay=0.99),
            batches=batches or Batches(),
            mesh=parallel.make_mesh(config.mesh),
            frames_per_step=4,
            evaluate=evaluate,
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
