"""Training of the separator: frozen codec, flow matching on its latents (spec/training.md)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.flow import flow_loss
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.optimizer import make_optimizer
from sam_audio_jax.train.step import TrainState, train_step

STEMS = ("mixture", "target", "residual")
Latents = Float[Array, "batch frames channels"]
Scalars = dict[str, Array]
Step = Callable[[TrainState, PyTree, PyTree], tuple[TrainState, Scalars]]


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """A training before any of its arrays exists: what to compile and where everything will lie."""

    step: Step  # (state, batch, codec weights) -> (state, metrics), pure
    state: TrainState  # of `jax.ShapeDtypeStruct`s with shardings
    frozen: PyTree  # the codec's weights, likewise
    make: Callable[[], PromptedSeparator]
    optimizer: optax.GradientTransformation

    @property
    def layout(self) -> TrainState:
        """Shardings of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def blueprint(config: TrainConfig, codec: Codec, mesh: Mesh) -> Blueprint:
    """The training of a config on a mesh, which need not be of this machine.

    `codec` may be abstract (`nnx.eval_shape`). Raises `UserError` for one of other sizes.
    """
    check_codec(config, codec)

    def make() -> PromptedSeparator:
        return PromptedSeparator(config.text, config.separator, rngs=nnx.Rngs(config.seed))

    graph, abstract = nnx.split(nnx.eval_shape(make))
    codec_graph, codec_state = nnx.split(codec)
    tx = make_optimizer(config.optim, frozen=() if config.train_text else ("text_encoder",))
    params = parallel.shaped(nnx.as_pure(abstract), parallel.of_parameters(abstract, mesh))
    whole = parallel.replicated(mesh)
    layout = jax.tree.map(lambda leaf: leaf.sharding, params)
    moments = parallel.shaped(
        jax.eval_shape(tx.init, params), parallel.of_optimizer(tx, params, layout, mesh)
    )
    step, key = jax.eval_shape(lambda: (jnp.int32(0), jax.random.key(0)))
    state = TrainState(
        parallel.shaped(step, whole), params, params, moments, parallel.shaped(key, whole)
    )
    return Blueprint(
        functools.partial(_step, config, tx, graph, codec_graph),
        state,
        parallel.shaped(nnx.as_pure(codec_state), whole),
        make,
        tx,
    )


def make_separator_training(
    config: TrainConfig, codec: Codec, mesh: Mesh, start: PromptedSeparator | None = None
) -> tuple[TrainState, Step, PyTree]:
    """The state at step 0, sharded over `mesh`; the pure step; the codec's weights.

    `start` are weights to go on from, instead of random ones. Nothing is ever whole on one device.
    Raises `UserError` for a codec or a start of other sizes.
    """
    plan = blueprint(config, codec, mesh)
    layout = plan.layout
    if start is None:
        born = jax.jit(lambda: nnx.as_pure(nnx.state(plan.make())), out_shardings=layout.params)
        params = born()
    else:
        params = jax.device_put(_weights(start, plan.state.params), layout.params)
    moments = jax.jit(plan.optimizer.init, out_shardings=layout.opt_state)(params)
    ema = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, ema, moments, jax.random.key(config.seed))
    weights = jax.device_put(nnx.as_pure(nnx.state(codec)), parallel.replicated(mesh))
    return state, plan.step, weights


def _step(
    config: TrainConfig,
    tx: optax.GradientTransformation,
    graph: nnx.GraphDef,
    codec_graph: nnx.GraphDef,
    state: TrainState,
    batch: PyTree,
    codec_weights: PyTree,
) -> tuple[TrainState, Scalars]:
    def loss(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[Array, Scalars]:
        codec = nnx.merge(codec_graph, codec_weights)
        return separation_loss(nnx.merge(graph, params), codec, batch, key, config), {}

    return train_step(
        state,
        batch,
        loss=loss,
        tx=tx,
        ema_decay=config.optim.ema_decay,
        accumulate=config.optim.accumulate,
    )


def separation_loss(
    prompted: PromptedSeparator,
    codec: Codec,
    batch: dict[str, Array],
    key: Key[Array, ""],
    config: TrainConfig,
) -> Float[Array, ""]:
    """Flow-matching loss of target and residual, generated jointly (published).

    Clips without video feed zeros to the video branch, as upstream does.
    """
    flow_key, dropout_key = jax.random.split(key)
    mixture, target, residual = to_latents(codec, batch)
    text = prompted.text_encoder(batch["text_ids"], batch["text_mask"])
    if not config.train_text:
        text = jax.lax.stop_gradient(text)
    video = jnp.zeros((*mixture.shape[:2], config.separator.video_width), mixture.dtype)
    conditions = Conditions(
        mixture=mixture,
        text=text,
        text_mask=batch["text_mask"],
        video=video,
        anchor_ids=batch["anchor_ids"],
        anchor_alignment=batch["anchor_alignment"],
        valid=batch["valid"],
    )
    velocity = functools.partial(prompted.separator, conditions=conditions, dropout_key=dropout_key)
    x1 = jnp.concatenate([target, residual], axis=-1)
    return flow_loss(velocity, x1, batch["valid"], flow_key, config.flow)


def to_latents(codec: Codec, batch: dict[str, Array]) -> tuple[Latents, Latents, Latents]:
    """Mixture, target, residual: waves `[batch, samples]` are encoded, latents are taken as is."""
    stems = [batch[name] for name in STEMS]
    if stems[0].ndim == 3:
        mixture, target, residual = (stem.astype(jnp.float32) for stem in stems)
    else:
        encoded = jax.lax.stop_gradient(codec.encode(jnp.concatenate(stems)))
        mixture, target, residual = jnp.split(encoded, len(STEMS))
    return mixture, target, residual


def check_codec(config: TrainConfig, codec: Codec) -> None:
    """Raises `UserError` unless the codec has the sizes of the config; the scale may be its own."""
    if said := config.codec.differences(codec.config, watermark=False):
        raise UserError(f"codec_checkpoint={config.codec_checkpoint} has {said}")


def _weights(start: PromptedSeparator, like: PyTree) -> Any:
    weights = nnx.as_pure(nnx.state(start))
    shapes = jax.tree.map(lambda x: x.shape, weights)
    if shapes != jax.tree.map(lambda x: x.shape, like):
        raise UserError("init_from has another text encoder or separator than the config")
    return weights
