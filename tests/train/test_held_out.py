"""The held-out loss: fixed draws, each item once, whatever the rows of a step.

Other layouts: tests/train/eight_devices.py and test_processes.py.
"""

import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import path_at
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train import held_out
from sam_audio_jax.train.held_out import TIMES, HeldOutItem, HeldOutLoss
from sam_audio_jax.train.objective import make_separator_training
from tests.tiny import filled

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
HOP = TINY.codec.hop


def mesh():
    return parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])


def item(number: int, frames: int) -> HeldOutItem:
    stems = np.random.default_rng(number).normal(size=(2, frames * HOP)).astype(np.float32)
    seconds = frames * HOP / TINY.codec.sample_rate
    domain = ("speech", "sfx")[number % 2]
    return HeldOutItem(domain, f"tone {number}", seconds, lambda: (stems[0], stems[1]))


ITEMS = [item(0, 6), item(1, 8), item(2, 8)]


@pytest.fixture(scope="module")
def codec():
    return filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))


@pytest.fixture(scope="module")
def state(codec):
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    state, _, _ = make_separator_training(TINY, codec, mesh(), start)
    return dataclasses.replace(state, ema=jax.tree.map(lambda x: 0.5 * x, state.params))


def losses(codec, state, items, rows, monkeypatch):
    monkeypatch.setattr(held_out, "ROWS", rows)
    return HeldOutLoss(TINY, codec, mesh(), items)(state)


def test_every_item_counts_once_whatever_the_rows_of_a_step(codec, state, monkeypatch):
    scores = losses(codec, state, ITEMS, 4, monkeypatch)
    assert set(scores) == {
        f"flow_loss/{weights}/{domain}"
        for weights in ("live", "averaged")
        for domain in ("sfx", "speech", "all")
    }
    assert scores["flow_loss/live/sfx"] != scores["flow_loss/averaged/sfx"]
    for name in ("live", "averaged"):
        sfx, speech = (scores[f"flow_loss/{name}/{domain}"] for domain in ("sfx", "speech"))
        assert scores[f"flow_loss/{name}/all"] == pytest.approx((2 * speech + sfx) / 3)
    other = losses(codec, state, ITEMS, 2, monkeypatch)
    assert other == pytest.approx(scores, rel=1e-5)


def test_the_loss_of_a_velocity_of_zero_is_that_of_the_path(codec, state, monkeypatch):
    """A separator whose velocity is 0 has the mean square of `x1 - x0` over the valid frames."""
    zero = jax.tree.map(jnp.zeros_like, state.params)
    scores = losses(codec, dataclasses.replace(state, params=zero), ITEMS, 4, monkeypatch)
    target, residual = ITEMS[1].stems()
    x1 = np.concatenate([codec.encode(jnp.asarray(w)[None]) for w in (target, residual)], -1)
    wanted = []
    for number, time in enumerate(TIMES):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(held_out.SEED), 1), number)
        x0 = jax.random.normal(key, x1.shape[1:])[None]
        wanted.append(path_at(jnp.asarray(x1), x0, jnp.full(1, time), TINY.flow)[1])
    assert scores["flow_loss/live/sfx"] == pytest.approx(
        float(np.mean(np.square(wanted))), rel=1e-4
    )
