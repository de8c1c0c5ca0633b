import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.flow import (
    FlowConfig,
    SamplerConfig,
    TimeGrid,
    checked_grid,
    checked_method,
    draw_time,
    flow_loss,
    masked_mse,
    no_slopes,
    sample,
    step,
)

X1 = jax.random.normal(jax.random.key(0), (3, 5, 4))
VALID = jnp.arange(5)[None] < jnp.array([5, 3, 1])[:, None]


def test_padded_frames_do_not_count():
    prediction = X1.at[1, 3:].set(100.0)
    assert masked_mse(prediction, X1, VALID) == 0
    assert masked_mse(prediction, X1, jnp.ones_like(VALID)) > 0


def test_the_true_velocity_has_no_loss():
    config = FlowConfig(sigma_min=0.1)
    keep = 1 - config.sigma_min

    def velocity(x, time):
        t = time[:, None, None]
        x0 = (x - t * X1) / (1 - keep * t)
        return X1 - keep * x0

    loss = flow_loss(velocity, X1, VALID, jax.random.key(1), config)
    assert loss < 1e-8


def test_loss_is_a_function_of_its_key():
    loss = functools.partial(flow_loss, lambda x, t: x, X1, VALID)
    a, b = jax.random.split(jax.random.key(2))
    assert loss(a, FlowConfig()) == loss(a, FlowConfig())
    assert loss(a, FlowConfig()) != loss(b, FlowConfig())


def test_logit_normal_times_gather_around_their_mean():
    config = FlowConfig(time="logit_normal", time_mean=-2.0, time_std=0.5)
    time = draw_time(jax.random.key(0), 1000, config)
    assert 0 < time.min() < time.max() < 1
    np.testing.assert_allclose(jnp.median(time), jax.nn.sigmoid(-2.0), atol=0.02)


@pytest.mark.parametrize(
    ("method", "grid", "steps", "order"),
    [
        ("euler", "uniform", 8, 1),
        ("midpoint", "uniform", 8, 2),
        ("heun", "quadratic", 32, 2),
        ("ab2", "uniform", 32, 2),
        ("ab2", "cosine", 32, 2),
        # Its first step is Euler's, which on the uniform grid costs it an order.
        ("ab3", "uniform", 32, 2),
        ("ab3", "quadratic", 32, 3),
        ("ab3", "cosine", 32, 3),
    ],
)
def test_order_of_convergence(method, grid, steps, order):
    velocity = lambda x, t: x * jnp.cos(3 * t)[:, None, None]  # noqa: E731
    want = X1 * jnp.exp(jnp.sin(3.0) / 3)

    def error(steps):
        sampler = SamplerConfig(method=method, steps=steps, grid=grid)
        return float(jnp.abs(sample(velocity, X1, sampler) - want).max())

    coarse, fine = error(steps), error(2 * steps)
    assert coarse / fine > 0.8 * 2**order


@pytest.mark.parametrize(
    ("method", "grid"),
    [
        ("euler", "quadratic"),
        ("midpoint", "cosine"),
        ("heun", "quadratic"),
        ("ab2", "uniform"),
        ("ab3", "cosine"),
    ],
)
def test_a_constant_velocity_is_exact_with_the_evaluations_that_are_stated(method, grid):
    sampler = SamplerConfig(method=method, steps=3, grid=grid)

    @jax.jit
    def solve(x):
        times, earlier = [], no_slopes(x, sampler)

        def velocity(x, time):
            times.append(time)
            return jnp.full_like(x, 2.0)

        for number in range(3):
            x, earlier = step(velocity, x, jnp.float32(number), sampler, earlier)
        return x, jnp.stack(times)

    x, times = solve(X1)
    np.testing.assert_allclose(x, X1 + 2.0, atol=1e-6)
    assert len(times) == sampler.evaluations
    assert times.min() == 0
    assert times.max() <= 1


def test_grids_are_dense_where_they_say():
    sizes = {grid: np.diff(SamplerConfig(steps=8, grid=grid).times) for grid in get_args(TimeGrid)}
    for each in sizes.values():
        np.testing.assert_allclose(each.sum(), 1)
    np.testing.assert_allclose(sizes["uniform"], 1 / 8)
    np.testing.assert_allclose(sizes["cosine"], sizes["cosine"][::-1])
    assert np.argmax(sizes["cosine"]) in (3, 4)
    assert (np.diff(sizes["quadratic"]) > 0).all()


def test_sample_is_its_steps_one_by_one():
    velocity = lambda x, t: jnp.sin(x + t[:, None, None])  # noqa: E731
    x = X1
    sampler = SamplerConfig(steps=3)
    for n in range(3):
        x, _ = step(velocity, x, jnp.float32(n), sampler)
    np.testing.assert_allclose(sample(velocity, X1, sampler), x, atol=1e-6)


def test_bad_settings_are_the_users_error():
    with pytest.raises(UserError, match="sigma_min=1"):
        FlowConfig(sigma_min=1.0)
    with pytest.raises(UserError, match="steps=0"):
        SamplerConfig(steps=0)
    with pytest.raises(UserError, match="method='rk4' is unknown; allowed: midpoint, euler, heun"):
        checked_method("rk4")
    with pytest.raises(UserError, match="grid='log' is unknown; allowed: uniform, cosine"):
        checked_grid("log")
