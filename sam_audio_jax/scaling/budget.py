"""What a study will cost, before it runs: operations, and time on a slice or on this machine."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan.chips import Slice
from sam_audio_jax.plan.programs import abstract_training_of
from sam_audio_jax.scaling.study import StudyRun
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.shapes import batch_shapes
from sam_audio_jax.train.step import TrainState, jit_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast a study runs, and what it costs."""

    target: Slice
    mfu: float  # share of the peak that training reaches; small networks reach far less than large
    price: float  # of a chip and hour

    def __post_init__(self):
        if not 0 < self.mfu <= 1:
            raise UserError(f"--mfu {self.mfu} must be above 0 and at most 1")
        if self.price < 0:
            raise UserError(f"--price {self.price} must be 0 or more")

    def chip_hours(self, operations: float | int) -> float:
        """Hours of one chip."""
        chip = self.target.chip
        return operations / (chip.flops * chip.devices * self.mfu) / 3600


def plan_lines(
    runs: Sequence[StudyRun], rate: Rate | None, seconds_of: dict[int, float] | None
) -> list[str]:
    """One line for each run, and the sum; times where a rate or measured seconds are given.

    `seconds_of` has the seconds of a step here by width.
    """
    head = f"{'run':<20} {'N':>10} {'steps':>9} {'D hours':>9} {'C':>10}"
    head += f" {'chip-hours':>11} {'price':>10}" if rate else ""
    head += f" {'hours here':>11}" if seconds_of else ""
    lines, total, here = [head], 0, 0.0
    for run in runs:
        steps = run.config.steps
        spent = run.operations(steps)
        total += spent
        line = (
            f"{run.name:<20} {run.parameters:>10.3g} {steps:>9d} "
            f"{run.seconds(steps) / 3600:>9.2f} {spent:>10.3g}"
        )
        if rate:
            hours = rate.chip_hours(spent)
            line += f" {hours:>11.3g} {hours * rate.price:>10.4g}"
        if seconds_of:
            hours = steps * seconds_of[run.width] / 3600
            here += hours
            line += f" {hours:>11.3g}"
        lines.append(line)
    lines.append(_sum_line(len(runs), total, rate, here if seconds_of else None))
    return lines


def _sum_line(count: int, total: int, rate: Rate | None, here: float | None) -> str:
    line = f"{count} runs: {total:.4g} operations"
    if rate:
        hours = rate.chip_hours(total)
        line += (
            f"; {hours:.4g} chip-hours of {rate.target.name} at an MFU of {rate.mfu:.1%}, "
            f"{hours / rate.target.chips:.4g} h of the slice, {hours * rate.price:.4g} at "
            f"{rate.price:g} a chip and hour; without evaluations, compilation and the cache"
        )
    if here is not None:
        line += f"; {here:.3g} h here, without evaluations and compilation"
    return line


def published_note(target: Slice) -> str:
    """What is known about the share of the peak on a chip."""
    best = target.chip.published
    known = f"the best published is {best.mfu:.1%} ({best.model})" if best else "none is published"
    return f"{known}; networks below 1 B parameters reach a fraction of it"


def timed_widths(runs: Sequence[StudyRun], steps: int) -> dict[int, float]:
    """The seconds of a training step here, by width: the median of `steps` steps of each size."""
    configs = {run.width: run.config for run in runs}
    return {width: seconds_per_step(config, steps) for width, config in configs.items()}


def seconds_per_step(config: TrainConfig, steps: int) -> float:
    """The median time of steps on one device of this machine, from random weights on zeros.

    Reading the data is not in it.
    """
    mesh = parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    training = abstract_training_of(config, mesh)
    params = nnx.as_pure(nnx.state(parallel.init_sharded(training.make, mesh)))
    moments = jax.jit(training.optimizer.init)(params)
    average = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, average, moments, jax.random.key(0))
    zeros: Any = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        (batch_shapes(config, config.batch), training.frozen),
    )
    step = jit_step(training.step, training.shardings)
    times = []
    with jax.set_mesh(mesh):
        for _ in range(steps + 1):
            start = time.perf_counter()
            state, metrics = step(jax.device_put(state, training.shardings), *zeros)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one compiles
