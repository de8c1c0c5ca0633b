"""Rectified flow between noise x0 and data x1 (arXiv 2512.18099; docs/training.md, "Objective").

Path `x_t = (1 - (1 - sigma_min) t) x0 + t x1`, velocity `x1 - (1 - sigma_min) x0`, t from 0 to 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from sam_audio_jax.bounds import Checked, Decay, Finite, Positive, Range
from sam_audio_jax.errors import UserError

Method = Literal["midpoint", "euler", "heun", "ab2", "ab3"]
TimeGrid = Literal["uniform", "cosine", "quadratic"]
ORDERS = {"ab2": 2, "ab3": 3}  # slopes that a step of a multistep method adds up, its own with it
Velocity = Callable[[Array, Array], Array]  # (state, time [batch]) -> velocity


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig(Checked, where="sampler"):
    """How the flow is integrated from noise to latents; the defaults are published."""

    # Or euler, heun, or Adams and Bashforth's methods of order 2 and 3, ab2 and ab3, which evaluate
    # once in a step and also use the slopes of the steps before.
    method: Method = "midpoint"
    steps: Annotated[int, Range(1, 100_000)] = 16  # from time 0 to 1
    # Steps of one size, short ones at both ends (cosine), or short ones at the noise (quadratic).
    grid: TimeGrid = "uniform"

    def __post_init__(self):
        super().__post_init__()
        checked_method(self.method)
        checked_grid(self.grid)

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of the velocity in one step."""
        return 2 if self.method in ("midpoint", "heun") else 1

    @property
    def evaluations(self) -> int:
        """Evaluations of the velocity in a whole solve."""
        return self.steps * self.evaluations_per_step

    @property
    def times(self) -> Float[np.ndarray, " edges"]:
        """Where steps begin and end, from 0 to 1."""
        part = np.arange(self.steps + 1) / self.steps
        if self.grid == "cosine":
            return (1 - np.cos(np.pi * part)) / 2
        return part**2 if self.grid == "quadratic" else part

    def step_size(self, time: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The size of the step that begins at a time, for models of few steps.

        It is 0, the velocity at that time, for methods that need more than one slope for a step.
        """
        if self.method != "euler":
            return jnp.zeros_like(time)
        if self.grid == "uniform":
            return jnp.full_like(time, 1 / self.steps)
        edges = jnp.asarray(self.times, jnp.float32)
        number = jnp.searchsorted(edges[1:-1], time, side="right")
        return jnp.diff(edges)[number]

    @property
    def slope_weights(self) -> Float[np.ndarray, "steps slopes"]:
        """For each step of a multistep method the weights of its slope and of earlier ones.

        They integrate the polynomial through the slopes exactly, for steps of any sizes. The first
        steps use as many slopes as there are: the first one is Euler's.
        """
        times, order = self.times, ORDERS[self.method]
        weights = np.zeros((self.steps, order))
        for step in range(self.steps):
            powers = np.arange(min(order, step + 1))
            nodes = (times[step - powers] - times[step]) / (times[step + 1] - times[step])
            weights[step, powers] = np.linalg.solve(nodes ** powers[:, None], 1 / (powers + 1))
        return weights


def checked_method(name: str) -> Method:
    """The name of a solver. Raises `UserError` for an unknown one."""
    for method in get_args(Method):
        if method == name:
            return method
    raise UserError(f"method={name!r} is unknown; allowed: {', '.join(get_args(Method))}")


def checked_grid(name: str) -> TimeGrid:
    """The name of a grid of times. Raises `UserError` for an unknown one."""
    for grid in get_args(TimeGrid):
        if grid == name:
            return grid
    raise UserError(f"grid={name!r} is unknown; allowed: {', '.join(get_args(TimeGrid))}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig(Checked, where="flow"):
    """The path is published; its `sigma_min` and the distribution of the time are ours."""

    sigma_min: Decay = 0.0  # noise left at t = 1
    time: Literal["uniform", "logit_normal"] = "uniform"
    time_mean: Finite = 0.0  # of the normal behind logit_normal
    time_std: Positive = 1.0
    # Rows of a batch that learn to agree with two steps of half their size, instead of the flow's
    # velocity, for models that are solved in few steps; needs separator.dit.step_size.
    consistency_share: Decay = 0.0
    finest_steps: Annotated[int, Range(2, 2**20)] = 128  # from noise to data, a power of two

    def __post_init__(self):
        super().__post_init__()
        if self.finest_steps & (self.finest_steps - 1):
            raise UserError(f"flow.finest_steps={self.finest_steps} must be a power of two")


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


Slopes = tuple[Float[Array, "batch frames channels"], ...]


def no_slopes(x: Float[Array, "batch frames channels"], sampler: SamplerConfig) -> Slopes:
    """What a solver remembers before its first step."""
    return (jnp.zeros_like(x),) * (ORDERS.get(sampler.method, 1) - 1)


def step(
    velocity: Velocity,
    x: Float[Array, "batch frames channels"],
    number: Float[Array, ""],
    sampler: SamplerConfig,
    earlier: Slopes = (),
) -> tuple[Float[Array, "batch frames channels"], Slopes]:
    """The state after step `number`, counted from 0, and the slopes that the next one uses.

    `earlier` are the slopes of a multistep method, the last one first; `no_slopes` at the start.
    """
    start, middle, end, dt = _step_times(number, sampler)

    def slope_at(x: Array, time: Array) -> Array:
        return velocity(x, jnp.broadcast_to(time, x.shape[:1])).astype(jnp.float32)

    slope = slope_at(x, start)
    if sampler.method == "midpoint":
        slope = slope_at(x + slope * (dt / 2), middle)
    elif sampler.method == "heun":
        slope = (slope + slope_at(x + slope * dt, end)) / 2
    elif sampler.method in ORDERS:
        slopes = (slope, *earlier)
        weights = jnp.asarray(sampler.slope_weights, jnp.float32)[number.astype(jnp.int32)]
        slope = sum((w * s for w, s in zip(weights, slopes, strict=True)), jnp.zeros_like(x))
        earlier = slopes[:-1]
    return x + dt * slope, earlier


def _step_times(
    number: Float[Array, ""], sampler: SamplerConfig
) -> tuple[Array, Array, Array, Array | float]:
    """Beginning, middle, end and length of a step."""
    steps = sampler.steps
    if sampler.grid == "uniform":
        return number / steps, (2 * number + 1) / (2 * steps), (number + 1) / steps, 1 / steps
    times = sampler.times
    edges = jnp.asarray(np.stack([times[:-1], times[1:]]), jnp.float32)
    start, end = edges[:, number.astype(jnp.int32)]
    return start, (start + end) / 2, end, end - start


def sample(
    velocity: Velocity,
    noise: Float[Array, "batch frames channels"],
    sampler: SamplerConfig,
) -> Float[Array, "batch frames channels"]:
    """x(1) from x(0) = `noise`, float32.

    On the uniform grid step n evaluates the velocity at n/steps and, midpoint, at
    (2n + 1)/(2 steps).
    """

    def body(state: tuple[Array, Slopes], number: Array) -> tuple[tuple[Array, Slopes], None]:
        x, earlier = state
        return step(velocity, x, number, sampler, earlier), None

    numbers = jnp.arange(sampler.steps, dtype=jnp.float32)
    x = noise.astype(jnp.float32)
    return jax.lax.scan(body, (x, no_slopes(x, sampler)), numbers)[0][0]
