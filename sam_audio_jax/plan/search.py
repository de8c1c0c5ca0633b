"""Layouts of a config on a slice, ranked by an estimate of their speed."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import jax

from sam_audio_jax import parallel
from sam_audio_jax.nn.kernels import Kernel
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan.chips import Slice
from sam_audio_jax.plan.estimate import mesh_sizes, work_of
from sam_audio_jax.plan.operations import with_remat
from sam_audio_jax.plan.programs import abstract_training_of
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import BASE

REMAT = ("none", "dots", "attention", "full")  # from the most memory to the least
LEAST_FSDP_ROWS = 8  # a weight cut thinner than the chip's tiles is gathered at twice the cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A mesh and a rematerialisation, with a rough estimate that needs no compiler."""

    mesh: MeshConfig
    remat: str
    seconds: float  # of a step
    state: int  # bytes of parameters, average and moments on a chip


def candidates(config: TrainConfig, target: Slice) -> list[Candidate]:
    """Every layout whose state alone fits, fastest first."""
    ranked, seconds, weights = [], {}, parameters(config)
    for mesh in meshes(config, target.size):
        state = state_bytes(config, mesh, target.size)
        if state > target.chip.hbm:
            continue
        links = _links(config, mesh, target, weights)
        for remat in REMAT:
            key = (remat, mesh.tensor)
            if key not in seconds:
                work = work_of(with_remat(config, remat), mesh, target, _kernel(config, mesh))
                seconds[key] = work.seconds
            step = max(seconds[key], links) + 0.5 * min(seconds[key], links)
            ranked.append(Candidate(mesh=mesh, remat=remat, seconds=step, state=state))
    return sorted(ranked, key=lambda one: (one.seconds, one.state))


def meshes(config: TrainConfig, chips: int) -> Iterator[MeshConfig]:
    """Powers of two along data, fsdp and tensor that batch, width and heads can be cut by."""
    dit = config.separator.dit
    powers = [2**n for n in range(chips.bit_length()) if chips % 2**n == 0]
    for fsdp, tensor in itertools.product(powers, (1, 2, 4)):
        if chips % (fsdp * tensor) or dit.heads % tensor or dit.mlp % tensor:
            continue
        shares = chips // tensor
        if config.batch % (shares * config.optim.accumulate) or dit.width % fsdp:
            continue
        if dit.width // fsdp < LEAST_FSDP_ROWS:
            continue
        yield MeshConfig(data=chips // (fsdp * tensor), fsdp=fsdp, tensor=tensor)


def state_bytes(config: TrainConfig, mesh: MeshConfig, chips: int) -> int:
    """Bytes of the training state on one chip, by its own shardings; nothing is allocated.

    With adapters it is theirs, and the weights that these are trained beside.
    """
    sizes = mesh_sizes(mesh, chips)
    abstract = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
    plan = abstract_training_of(config, abstract)
    held = (plan.state, plan.frozen.get(BASE))

    def share(leaf: jax.ShapeDtypeStruct) -> int:
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(share(leaf) for leaf in jax.tree.leaves(held))


def _links(config: TrainConfig, mesh: MeshConfig, target: Slice, weights: int) -> float:
    """Seconds of the collectives that a layout cannot do without, one torus dimension each."""
    sizes = mesh_sizes(mesh, target.size)
    kernels = 2.0 * weights / sizes["tensor"]  # bf16
    fsdp, data, tensor = sizes["fsdp"], sizes["data"], sizes["tensor"]
    gathers = 3 * kernels * (fsdp - 1) / fsdp  # forwards, backwards, gradients
    reduces = 2 * kernels / fsdp * (data - 1) / data
    rows = config.batch // (fsdp * data)
    frames = round(config.data.mix.seconds * config.codec.frame_rate)
    dit = config.separator.dit
    states = 2.0 * rows * frames * dit.width * dit.depth
    sums = 6 * 2 * states * (tensor - 1) / tensor
    return (gathers + reduces + sums) / target.ring_rate(1, 1)


def parameters(config: TrainConfig) -> int:
    """The number of parameters, those of the frozen text encoder included."""
    plan = abstract_training_of(config, parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]))
    held = (plan.state.params, plan.frozen.get(BASE))  # adapters, and what they are beside
    return sum(leaf.size for leaf in jax.tree.leaves(held))


def _kernel(config: TrainConfig, mesh: MeshConfig) -> Kernel:
    """The attention kernel that `auto` chooses on a TPU."""
    kernel = config.separator.dit.attention
    return ("xla" if mesh.sequence > 1 else "splash") if kernel == "auto" else kernel
