"""The time of a training step by two rules, and the share of the chips' peak that it uses.

The roofline: every matrix product takes the longer of its operations at the peak rate and its bytes
at the memory's; element-wise work counts as fused into them. Collectives go around rings along the
torus dimensions that their mesh axes cover, hidden or not. No run reaches it.

The realistic rule: products reach the share of the peak that the best published training reached on
this chip, at most, which stands for the kernels and for element-wise work, and of the collectives
counts what the compiled schedule leaves exposed (`plan/schedule.py`). So it is below what was
published by the exposed collectives, the optimiser's pass and what is computed twice.
"""

import dataclasses
import functools

import numpy as np
from jax.sharding import Mesh

from sam_audio_jax import parallel
from sam_audio_jax.nn.kernels import Kernel
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import flops, schedule
from sam_audio_jax.plan.chips import Chip, Slice
from sam_audio_jax.plan.operations import products_of, with_remat
from sam_audio_jax.plan.programs import Program
from sam_audio_jax.train.config import TrainConfig

STATE_PASSES = 3  # over the optimiser's bytes: read, written, and the gradients'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Operations and time of one chip in one training step."""

    useful: float  # operations of the model, forwards and backwards
    done: float  # with those that rematerialisation repeats
    seconds: float  # of all products at their roofline
    realistic: float | None  # of them by the published share of the peak, where there is one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The time of one training step, in seconds, and what it consists of."""

    work: Work
    update: float  # of the optimiser's pass over its state
    links: float  # of all collectives, one after another
    peak: float  # operations a second of a chip
    schedule: schedule.Timeline  # as compiled

    @property
    def step(self) -> float:
        """The time with the collectives hidden behind the products as far as possible."""
        return max(self.work.seconds, self.links) + self.update

    @property
    def step_exposed(self) -> float:
        """The time with no collective hidden."""
        return self.work.seconds + self.links + self.update

    @property
    def mfu(self) -> float:
        """Useful operations as a share of what the chip could have done in `step`."""
        return self.work.useful / (self.peak * self.step)

    @property
    def mfu_exposed(self) -> float:
        """The same share in `step_exposed`."""
        return self.work.useful / (self.peak * self.step_exposed)

    @property
    def step_realistic(self) -> float | None:
        """The time by the realistic rule; None for a chip without a published MFU."""
        if self.work.realistic is None:
            return None
        return self.work.realistic + self.schedule.exposed + self.update

    @property
    def mfu_realistic(self) -> float | None:
        """The same share in `step_realistic`; never above the best that was published."""
        step = self.step_realistic
        return None if step is None else self.work.useful / (self.peak * step)


def work_of(config: TrainConfig, mesh: MeshConfig, target: Slice, kernel: Kernel) -> Work:
    """Counts a chip's share of the train step, its own rows; heads and frames in equal parts.

    `kernel` says whether the scores of attention stay inside a fused kernel.
    """
    sizes = mesh_sizes(mesh, target.size)
    rows = config.batch // (sizes["data"] * sizes["fsdp"])
    parts = sizes["tensor"] * sizes["sequence"]
    chip = target.chip
    own = dataclasses.replace(config, batch=rows)
    useful = products_of(with_remat(own, "none"))
    done = products_of(own)
    fused = kernel != "xla"

    def seconds(share: float) -> float:
        each = (product.times * seconds_of(product, chip, share, fused) for product in done)
        return sum(each) / parts

    return Work(
        useful=flops.total(useful) / parts,
        done=flops.total(done) / parts,
        seconds=seconds(1.0),
        realistic=seconds(chip.published.mfu) if chip.published else None,
    )


def seconds_of(product: flops.Product, chip: Chip, share: float = 1.0, fused: bool = True) -> float:
    """One run of a product: its operations at a share of the peak, or its bytes, if that is longer.

    With `fused` the scores of attention stay inside a kernel.
    """
    moved = product.moved - fused * product.scores
    return max(product.flops / (chip.flops * share), moved / chip.hbm_rate)


def estimate(work: Work, mesh: Mesh, target: Slice, program: Program) -> Estimate:
    """Estimates a step from the compiled program: its collectives, schedule and size of state."""
    chip = target.chip
    share = chip.published.mfu if chip.published else 1.0
    rate = functools.cache(functools.partial(link_rate, mesh, target))
    return Estimate(
        work=work,
        update=STATE_PASSES * program.donated / chip.hbm_rate,
        links=sum(c.sent / rate(c.axes) for c in program.collectives),
        peak=chip.flops,
        schedule=schedule.read(
            program.text,
            mesh.shape,
            seconds=lambda product: seconds_of(product, chip, share),
            rate=rate,
        ),
    )


def link_rate(mesh: Mesh, target: Slice, axes: tuple[str, ...]) -> float:
    """Bytes a second that a chip sends to its group along mesh axes, by its positions."""
    order = [0 if name not in axes else slice(None) for name in mesh.axis_names]
    group = np.ravel(mesh.devices[tuple(order)])
    coordinates = np.array([device.coords for device in group])
    spans = [len(set(column)) for column in coordinates.T]
    sides = [*target.shape, *[1] * (len(spans) - len(target.shape))]
    used = [(n, side) for n, side in zip(spans, sides, strict=True) if n > 1]
    closed = sum(n == side and target.is_ring(side) for n, side in used)
    return target.ring_rate(max(len(used), 1), closed)


def mesh_sizes(mesh: MeshConfig, chips: int) -> dict[str, int]:
    """The four sizes with a -1 filled in."""
    return dict(zip(parallel.MESH_AXES, parallel.resolve(mesh, chips), strict=True))
