"""Operations of a training, counted in the jaxpr of its real step: one count for all that asks.

`sam-audio plan` and the scaling laws print the numbers of this file, so they agree to the digit.
Matrix products and convolutions are counted, forwards and backwards, a multiply-add being two;
element-wise work is not. What rematerialisation computes twice is no useful operation.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import flops
from sam_audio_jax.plan.flops import Product
from sam_audio_jax.plan.programs import abstract_codec, abstract_training_of
from sam_audio_jax.scorers.cnn14 import Cnn14
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import STEMS, needs_teacher
from sam_audio_jax.train.shapes import batch_shapes


@dataclasses.dataclass(frozen=True)
class StepOperations:
    """Useful operations of one training step over the whole batch, by the network that does them.

    A part is 0 where it is not in the step: codec and teacher with a latent cache, which has their
    results (`of_encoding`).
    """

    separator: int  # forwards and backwards, with the alignment's head
    text_encoder: int  # forwards; where it is trained, backwards too
    codec: int
    teacher: int

    @property
    def total(self) -> int:
        return self.separator + self.text_encoder + self.codec + self.teacher


def of_step(config: TrainConfig) -> int:
    """Useful operations of one training step over the whole batch."""
    return flops.total(products_of(with_remat(config, "none")))


def done_by_step(config: TrainConfig) -> int:
    """Operations of one training step, with those that rematerialisation repeats."""
    return flops.total(products_of(config))


def parts_of_step(config: TrainConfig) -> StepOperations:
    """`of_step` by networks; what is no encoder's is the separator's."""
    batch = batch_shapes(config, config.batch)
    text = _text_encoder(config, batch)
    codec = 0 if config.data.cache else config.batch * of_encoding(config)
    teacher = _teacher(config, batch) if needs_teacher(config) else 0
    return StepOperations(of_step(config) - text - codec - teacher, text, codec, teacher)


@functools.lru_cache(maxsize=16)
def of_encoding(config: TrainConfig) -> int:
    """Operations of the codec for one example: mixture, target and residual."""
    waves = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=""), batch=1)
    shape = batch_shapes(waves, 1)["mixture"].shape
    return _forward(
        abstract_codec(config.codec), Codec.encode, jnp.float32, (len(STEMS), *shape[1:])
    )


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


def _text_encoder(config: TrainConfig, batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Operations of the text encoder in one step."""
    encoder = nnx.eval_shape(lambda: T5Encoder(config.text, rngs=Rngs(0)))
    graph, state = nnx.split(encoder)

    def run(weights: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights)(ids, mask).astype(jnp.float32).sum()

    counted = jax.grad(run) if config.train_text else run
    return flops.total(
        flops.products(counted, nnx.as_pure(state), batch["text_ids"], batch["text_mask"])
    )


def _teacher(config: TrainConfig, batch: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Operations of the alignment's teacher in one step."""
    alignment, rate = config.alignment, config.codec.sample_rate
    teacher = nnx.eval_shape(lambda: Cnn14(alignment.teacher, rngs=Rngs(0)))

    def run(network: Cnn14, wave: jax.Array) -> jax.Array:
        return network.features(wave, rate, tensor=alignment.tensor)

    return _forward(teacher, run, jnp.float32, batch["target"].shape)


def _forward(network: nnx.Module, run: Any, dtype: Any, shape: tuple[int, ...]) -> int:
    """Operations of one forward call on an array."""
    graph, state = nnx.split(network)
    return flops.total(
        flops.products(
            lambda weights, x: run(nnx.merge(graph, weights), x),
            nnx.as_pure(state),
            jax.ShapeDtypeStruct(shape, dtype),
        )
    )
