import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_audio_jax.train.step import TrainState, train_step, update_ema


def loss(params, batch, key):
    value = jnp.mean(jnp.square(batch["x"] @ params["kernel"]))
    return value, {"first": batch["x"][0, 0], "noise": jax.random.uniform(key)}


def start(**options):
    params = {"kernel": jax.random.normal(jax.random.key(0), (3, 2))}
    tx = optax.sgd(0.1)
    state = TrainState(jnp.int32(0), params, params, tx.init(params), jax.random.key(0))
    return jax.jit(functools.partial(train_step, loss=loss, tx=tx, ema_decay=0.5, **options)), state


def batch(value=1.0):
    return {"x": value * jax.random.normal(jax.random.key(1), (4, 3))}


def test_same_state_same_batch_same_result_and_another_step_another_key():
    step, state = start()
    (first, metrics), (again, repeated) = step(state, batch()), step(state, batch())
    np.testing.assert_array_equal(first.params["kernel"], again.params["kernel"])
    assert metrics["noise"] == repeated["noise"] != step(first, batch())[1]["noise"]


def test_a_batch_that_is_not_finite_changes_nothing_but_the_count():
    step, state = start()
    after, metrics = step(state, batch(jnp.nan))
    np.testing.assert_array_equal(after.params["kernel"], state.params["kernel"])
    np.testing.assert_array_equal(after.ema["kernel"], state.ema["kernel"])
    assert bool(metrics["skipped"])
    assert int(after.step) == 1


def test_a_batch_in_parts_gives_the_same_step():
    step, state = start()
    parts, _ = start(accumulate=2)
    whole, metrics = step(state, batch())
    accumulated, measured = parts(state, batch())
    np.testing.assert_allclose(accumulated.params["kernel"], whole.params["kernel"], rtol=1e-5)
    np.testing.assert_allclose(measured["loss"], metrics["loss"], rtol=1e-5)


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (8, 0.5), (10**6, 0.9)])
def test_the_average_forgets_its_start(step, kept):
    ema = update_ema({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, jnp.int32(step), 0.9)
    np.testing.assert_allclose(ema["w"], kept, rtol=1e-6)
