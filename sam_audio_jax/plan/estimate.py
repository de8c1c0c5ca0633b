"""Roofline of a training step: its time at the chips' peak rates, and the share of them used.

Every matrix product takes the longer of its operations at the peak rate and its bytes at the
memory's; element-wise work counts as fused into them. Collectives go around rings along the
torus dimensions that their mesh axes cover. The real time is longer: kernels do not reach the peak.
"""

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh

from sam_audio_jax import parallel
from sam_audio_jax.nn.kernels import Kernel
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import flops
from sam_audio_jax.plan.chips import Slice
from sam_audio_jax.plan.hlo import Collective
from sam_audio_jax.plan.programs import abstract_training_of
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.shapes import batch_shapes

STATE_PASSES = 3  # over the optimiser's bytes: read, written, and the gradients'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Operations and time of one chip in one training step."""

    useful: float  # operations of the model, forwards and backwards
    done: float  # with those that rematerialisation repeats
    seconds: float  # of all products at their roofline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """The time of one training step, in seconds, and what it consists of."""

    work: Work
    update: float  # of the optimiser's pass over its state
    links: float  # of all collectives, one after another
    peak: float  # operations a second of a chip

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


def work_of(config: TrainConfig, mesh: MeshConfig, target: Slice, kernel: Kernel) -> Work:
    """Counts a chip's share of the train step, its own rows; heads and frames in equal parts.

    `kernel` says whether the scores of attention stay inside a fused kernel.
    """
    sizes = mesh_sizes(mesh, target.chips)
    rows = config.batch // (sizes["data"] * sizes["fsdp"])
    parts = sizes["tensor"] * sizes["sequence"]
    chip = target.chip
    own = dataclasses.replace(config, batch=rows)
    useful = _products(with_remat(own, "none"))
    done = _products(own)
    fused = kernel != "xla"
    seconds = sum(
        product.times
        * max(
            product.flops / chip.flops,
            (product.moved - fused * product.scores) / chip.hbm_rate,
        )
        for product in done
    )
    return Work(
        useful=flops.total(useful) / parts, done=flops.total(done) / parts, seconds=seconds / parts
    )


@functools.lru_cache(maxsize=16)
def _products(config: TrainConfig) -> list[flops.Product]:
    """The products of the config's training step on one device."""
    plan = abstract_training_of(config, parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]))
    batch = batch_shapes(config, config.batch)
    return flops.products(plan.step, plan.state, batch, plan.frozen)


def estimate(
    work: Work, mesh: Mesh, target: Slice, collectives: tuple[Collective, ...], donated: float
) -> Estimate:
    """Estimates a step from the compiled program's collectives and the bytes of its state."""
    rates = {axes: link_rate(mesh, target, axes) for axes in {c.axes for c in collectives}}
    return Estimate(
        work=work,
        update=STATE_PASSES * donated / target.chip.hbm_rate,
        links=sum(c.sent / rates[c.axes] for c in collectives),
        peak=target.chip.flops,
    )


def link_rate(mesh: Mesh, target: Slice, axes: tuple[str, ...]) -> float:
    """Bytes a second that a chip sends to its group along mesh axes, by its positions."""
    order = [0 if name not in axes else slice(None) for name in mesh.axis_names]
    group = np.ravel(mesh.devices[tuple(order)])
    coordinates = np.array([device.coords for device in group])
    spans = [len(set(column)) for column in coordinates.T]
    sides = [*target.shape, *[1] * (len(spans) - len(target.shape))]
    used = [(n, side) for n, side in zip(spans, sides, strict=True) if n > 1]
    closed = sum(n == side and side >= target.chip.wraps for n, side in used)
    return target.ring_rate(max(len(used), 1), closed)


def mesh_sizes(mesh: MeshConfig, chips: int) -> dict[str, int]:
    """The four sizes with a -1 filled in."""
    return dict(zip(parallel.MESH_AXES, parallel.resolve(mesh, chips), strict=True))


def with_remat(config: TrainConfig, remat: str) -> TrainConfig:
    """The config with another rematerialisation."""
    dit = dataclasses.replace(config.separator.dit, remat=remat)
    return dataclasses.replace(config, separator=dataclasses.replace(config.separator, dit=dit))
