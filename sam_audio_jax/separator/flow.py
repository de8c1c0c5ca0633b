"""Rectified flow between noise x0 and data x1 (arXiv 2512.18099; docs/training.md, "Objective").

Path `x_t = (1 - (1 - sigma_min) t) x0 + t x1`, velocity `x1 - (1 - sigma_min) x0`, t from 0 to 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from sam_audio_jax.bounds import Checked, Decay, Finite, Positive, Range
from sam_audio_jax.errors import UserError

Method = Literal["midpoint", "euler", "heun"]
Velocity = Callable[[Array, Array], Array]  # (state, time [batch]) -> velocity


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig(Checked, where="sampler"):
    """How the flow is integrated from noise to latents; the defaults are published."""

    method: Method = "midpoint"  # or euler, heun
    steps: Annotated[int, Range(1, 100_000)] = 16  # equal ones, from time 0 to 1

    def __post_init__(self):
        super().__post_init__()
        checked_method(self.method)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of the velocity in one step."""
        return 1 if self.method == "euler" else 2


def checked_method(name: str) -> Method:
    """The name of a solver. Raises `UserError` for an unknown one."""
    for method in get_args(Method):
        if method == name:
            return method
    raise UserError(f"method={name!r} is unknown; allowed: {', '.join(get_args(Method))}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig(Checked, where="flow"):
    """The path is published; its `sigma_min` and the distribution of the time are ours."""

    sigma_min: Decay = 0.0  # noise left at t = 1
    time: Literal["uniform", "logit_normal"] = "uniform"
    time_mean: Finite = 0.0  # of the normal behind logit_normal
    time_std: Positive = 1.0


def draw_time(key: Key[Array, ""], batch: int, config: FlowConfig) -> Float[Array, " batch"]:
    """Flow times in (0, 1), one per item."""
    if config.time == "uniform":
        return jax.random.uniform(key, (batch,))
    return jax.nn.sigmoid(config.time_mean + config.time_std * jax.random.normal(key, (batch,)))


def masked_mse(
    prediction: Float[Array, "batch frames channels"],
    wanted: Float[Array, "batch frames channels"],
    valid: Bool[Array, "batch frames"],
) -> Float[Array, ""]:
    """Mean over channels and the valid frames of all items, in float32."""
    return jnp.sum(_frame_mse(prediction, wanted) * valid) / jnp.maximum(jnp.sum(valid), 1)


def item_mse(
    prediction: Float[Array, "batch frames channels"],
    wanted: Float[Array, "batch frames channels"],
    valid: Bool[Array, "batch frames"],
) -> Float[Array, " batch"]:
    """Mean over channels and valid frames of each item, in float32; 0 without a valid frame."""
    error = _frame_mse(prediction, wanted)
    return jnp.sum(error * valid, axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1)


def _frame_mse(
    prediction: Float[Array, "batch frames channels"],
    wanted: Float[Array, "batch frames channels"],
) -> Float[Array, "batch frames"]:
    error = prediction.astype(jnp.float32) - wanted.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=-1)


def draw_path(
    x1: Float[Array, "batch frames channels"], key: Key[Array, ""], config: FlowConfig
) -> tuple[
    Float[Array, "batch frames channels"],
    Float[Array, " batch"],
    Float[Array, "batch frames channels"],
]:
    """A noisy state at one random time per item, that time, and the velocity there."""
    noise_key, time_key = jax.random.split(key)
    x1 = x1.astype(jnp.float32)
    x0 = jax.random.normal(noise_key, x1.shape)
    time = draw_time(time_key, x1.shape[0], config)
    noisy, wanted = path_at(x1, x0, time, config)
    return noisy, time, wanted


def path_at(
    x1: Float[Array, "batch frames channels"],
    x0: Float[Array, "batch frames channels"],
    time: Float[Array, " batch"],
    config: FlowConfig,
) -> tuple[Float[Array, "batch frames channels"], Float[Array, "batch frames channels"]]:
    """The state at a time on the path from noise `x0` to data `x1`, and the velocity there."""
    keep = 1 - config.sigma_min
    t = time[:, None, None]
    return (1 - keep * t) * x0 + t * x1, x1 - keep * x0


def flow_loss(
    velocity: Velocity,
    x1: Float[Array, "batch frames channels"],
    valid: Bool[Array, "batch frames"],
    key: Key[Array, ""],
    config: FlowConfig,
) -> Float[Array, ""]:
    """Squared error of the velocity at one random time per item; noise and time come from `key`."""
    noisy, time, wanted = draw_path(x1, key, config)
    return masked_mse(velocity(noisy, time), wanted, valid)


def step(
    velocity: Velocity,
    x: Float[Array, "batch frames channels"],
    number: Float[Array, ""],
    sampler: SamplerConfig,
) -> Float[Array, "batch frames channels"]:
    """The state after step `number`, counted from 0."""
    steps, dt = sampler.steps, 1 / sampler.steps

    def slope_at(x: Array, time: Array) -> Array:
        return velocity(x, jnp.broadcast_to(time, x.shape[:1])).astype(jnp.float32)

    slope = slope_at(x, number / steps)
    if sampler.method == "midpoint":
        slope = slope_at(x + slope * (dt / 2), (2 * number + 1) / (2 * steps))
    elif sampler.method == "heun":
        slope = (slope + slope_at(x + slope * dt, (number + 1) / steps)) / 2
    return x + dt * slope


def sample(
    velocity: Velocity,
    noise: Float[Array, "batch frames channels"],
    sampler: SamplerConfig,
) -> Float[Array, "batch frames channels"]:
    """x(1) from x(0) = `noise`, float32.

    Step n evaluates the velocity at n/steps and, midpoint, at (2n + 1)/(2 steps).
    """

    def body(x: Array, number: Array) -> tuple[Array, None]:
        return step(velocity, x, number, sampler), None

    numbers = jnp.arange(sampler.steps, dtype=jnp.float32)
    return jax.lax.scan(body, noise.astype(jnp.float32), numbers)[0]
