"""Operations of a training, counted in the jaxpr of its real step: one count for all that asks.

`sam-audio plan` and the scaling laws print the numbers of this file, so they agree to the digit.
Matrix products and convolutions are counted, forwards and backwards, a multiply-add being two;
element-wise work is not. What rematerialisation computes twice is no useful operation.
"""

import dataclasses
import functools

import jax

from sam_audio_jax import parallel
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import flops
from sam_audio_jax.plan.flops import Product
from sam_audio_jax.plan.programs import abstract_training_of
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.shapes import batch_shapes


def of_step(config: TrainConfig) -> int:
    """Useful operations of one training step over the whole batch."""
    return flops.total(products_of(with_remat(config, "none")))


def done_by_step(config: TrainConfig) -> int:
    """Operations of one training step, with those that rematerialisation repeats."""
    return flops.total(products_of(config))


@functools.lru_cache(maxsize=32)
def products_of(config: TrainConfig) -> list[Product]:
    """The products of the config's training step on one device."""
    plan = abstract_training_of(config, parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]))
    batch = batch_shapes(config, config.batch)
    return flops.products(plan.step, plan.state, batch, plan.frozen)


def with_remat(config: TrainConfig, remat: str) -> TrainConfig:
    """The config with another rematerialisation."""
    dit = dataclasses.replace(config.separator.dit, remat=remat)
    return dataclasses.replace(config, separator=dataclasses.replace(config.separator, dit=dit))
