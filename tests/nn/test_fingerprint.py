"""A fingerprint sees every weight, on any mesh, and knows those of earlier versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.nn import fingerprint as module
from sam_audio_jax.nn.fingerprint import (
    DIGITS,
    fingerprint,
    fingerprint_of,
    in_saved_form,
    same_weights,
)

OLD = "3da14e8d4a2792a9"  # what an earlier version saved of `weights()`


def weights() -> dict[str, jax.Array]:
    grid = np.sin(np.arange(3 * 5 * 7, dtype=np.float32)).reshape(3, 5, 7)
    small = grid[0] * np.float32(1e-5)
    return {"kernel": jnp.asarray(grid), "scale": jnp.asarray(small)}


def changed(make) -> dict[str, jax.Array]:
    kernel = np.array(weights()["kernel"])
    make(kernel.reshape(-1))
    return weights() | {"kernel": jnp.asarray(kernel)}


def swap(flat):
    flat[[20, 40]] = flat[[40, 20]]


def nudge(flat):
    flat[20] = np.nextafter(flat[20], np.float32(0))


@pytest.mark.parametrize("make", [swap, nudge])
def test_weights_between_the_extremes_count(make):
    now, other = fingerprint_of(weights()), fingerprint_of(changed(make))
    assert now[:DIGITS] == other[:DIGITS]
    assert now != other
    assert fingerprint_of(changed(lambda flat: None)) == now


def test_those_of_an_earlier_version_are_known_by_what_they_say():
    now = fingerprint_of(weights())
    assert same_weights(OLD, now)
    assert same_weights(now, now)
    assert not same_weights(now[:-1] + "x", now)
    assert not same_weights("0" * DIGITS, now)
    plan = {"weights": now, "scorers": {"judge": ["JudgeScorer", now, {"a": 1}]}, "new": 1}
    saved = {"weights": OLD, "scorers": {"judge": ["JudgeScorer", now, {"a": 2}]}, "old": 1}
    assert in_saved_form(plan, saved) == plan | {"weights": OLD}


@pytest.mark.parametrize("rounded", [False, True])
def test_a_program_gives_what_numpy_gives(rounded, monkeypatch):
    by_numpy = fingerprint_of(weights(), rounded=rounded)
    monkeypatch.setattr(module, "CHUNK", 8)
    assert fingerprint_of(weights(), rounded=rounded) == by_numpy
    monkeypatch.setattr(module.parallel, "platform", lambda: "tpu")
    assert fingerprint_of(weights(), rounded=rounded) == by_numpy


def test_a_copy_in_float16_is_the_same_if_rounded():
    class Network(nnx.Module):
        def __init__(self, values):
            self.values = nnx.Param(values)

    first = Network(weights()["kernel"])
    copy = Network(weights()["kernel"].astype(jnp.float16).astype(jnp.float32))
    assert fingerprint(first) != fingerprint(copy)
    assert fingerprint(first, rounded=True) == fingerprint(copy, rounded=True)


def test_halves_are_those_of_ieee_754():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), np.float32(2.0) ** np.arange(-30, 18)])
    exact = np.arange(2**11, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (exact[1:] + exact[:-1]) / 2  # halves
    x = np.concatenate([x, -x, between, between * np.float32(1 + 2**-20)])
    x = x[np.isfinite(x) & (np.abs(x) > 1e-37)]
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(np.asarray(module._half_bits(jnp.asarray(x))), wanted)
