"""Training of the separator: frozen codec, flow matching on its latents (docs/training.md).

With `alignment.weight` a hidden state also learns the features of a frozen event model, and with
`refined.weight` the decoded stems what makes a good mask of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Float, Key, PyTree, Shaped

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.audio_tower import AudioTower
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import lora
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.cnn14 import Cnn14
from sam_audio_jax.separator.few_steps import ConsistentRows, with_consistency
from sam_audio_jax.separator.flow import draw_path, masked_mse
from sam_audio_jax.separator.model import PreparedConditions, PromptedSeparator, Separator
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.separator.refined_loss import refined_error_db
from sam_audio_jax.separator.representation_alignment import (
    AlignmentHead,
    alignment_loss,
    to_frames,
)
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.example_prompts import blended_prompts
from sam_audio_jax.train.frozen import RANDOM, make_teacher
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.parametrisation import scale_initial, scale_rates
from sam_audio_jax.train.separator_start import base_weights, start_weights
from sam_audio_jax.train.step import Scalars, Step, TrainState, train_step

STEMS = ("mixture", "target", "residual")
BASE = "base"  # among the frozen weights: the network beside whose kernels there are adapters
_Latents = Float[Array, "batch frames channels"]


@dataclasses.dataclass(frozen=True)
class AbstractTraining:
    """A training before any of its arrays exists: the step to compile, shapes and shardings."""

    step: Step  # (state, batch, frozen weights) -> (state, metrics), pure
    state: TrainState  # of `jax.ShapeDtypeStruct`s with shardings
    # Weights of codec and teacher, and of the base of adapters; of `jax.ShapeDtypeStruct`s too.
    frozen: PyTree
    make: Callable[[], PromptedSeparator]
    optimizer: optax.GradientTransformation

    @property
    def shardings(self) -> TrainState:
        """Shardings of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def abstract_training(
    config: TrainConfig, codec: Codec, mesh: Mesh | AbstractMesh
) -> AbstractTraining:
    """The training of a config on a mesh, which need not be of this machine.

    `codec` may be abstract (`nnx.eval_shape`). Raises `UserError` for one of other sizes.
    """
    check_codec(config, codec)
    make = functools.partial(make_model, config)
    graph, abstract = nnx.split(nnx.eval_shape(make))
    tx = make_optimizer(
        config.optim,
        constant_schedule(config.optim),
        decay_mask,
        frozen=() if config.train_text or config.lora.rank else ("text_encoder",),
        rates=scale_rates(config.parametrisation, config.separator.dit),
    )
    shardings = parallel.parameter_shardings(abstract, mesh)
    params = parallel.with_shardings(nnx.as_pure(abstract), shardings)
    frozen: dict[str, PyTree] = {}
    if config.lora.rank:
        shardings, _ = lora.split_factors(shardings)
        params, frozen[BASE] = lora.split_factors(params)
    replicated = parallel.replicated(mesh)
    moments = parallel.with_shardings(
        jax.eval_shape(tx.init, params), parallel.optimizer_shardings(tx, params, shardings, mesh)
    )
    step, key = jax.eval_shape(lambda: (jnp.int32(0), jax.random.key(0)))
    state = TrainState(
        parallel.with_shardings(step, replicated),
        params,
        params,
        moments,
        parallel.with_shardings(key, replicated),
    )
    graphs: dict[str, nnx.GraphDef[Any]] = {}
    graphs["codec"], weights = nnx.split(codec)
    frozen["codec"] = parallel.with_shardings(nnx.as_pure(weights), replicated)
    if needs_teacher(config):
        teacher = config.alignment.teacher
        graphs["teacher"], weights = nnx.split(nnx.eval_shape(lambda: Cnn14(teacher, rngs=Rngs(0))))
        shardings = parallel.parameter_shardings(weights, mesh)
        frozen["teacher"] = parallel.with_shardings(nnx.as_pure(weights), shardings)
    if config.like.share:
        sizes = config.like.tower
        graphs["audio_tower"], weights = nnx.split(
            nnx.eval_shape(lambda: AudioTower(sizes, rngs=Rngs(0)))
        )
        frozen["audio_tower"] = parallel.with_shardings(nnx.as_pure(weights), replicated)
    run = functools.partial(_step, config, tx, graph, graphs)
    return AbstractTraining(run, state, frozen, make, tx)


def make_separator_training(
    config: TrainConfig,
    codec: Codec,
    mesh: Mesh,
    start: PromptedSeparator | T5Encoder | None = None,
    *,
    audio_tower: AudioTower | None = None,
    restored: bool = False,
) -> tuple[TrainState, Step, PyTree]:
    """The state at step 0, sharded over `mesh`; the pure step; the frozen weights.

    The step is `step(state, batch, frozen weights) -> (state, metrics)`. `start` has weights to
    start from, instead of random ones, of all or of the text encoder (`frozen.load_start`); an
    alignment head is always new. A state that will be `restored` from a checkpoint needs none.
    `audio_tower` makes the vectors of prompts by example, where the config has a share of them.
    With `config.lora` the state has the adapters alone, and `start`, the base, is among the frozen
    weights: a restored run needs it, too.
    No parameter is ever whole on one device. Raises `UserError` for a codec, a teacher or a
    start of other sizes, and for a frozen text encoder without weights.
    """
    plan = abstract_training(config, codec, mesh)
    shardings = plan.shardings
    frozen: dict[str, PyTree] = {}
    if start is None and not (restored or config.train_text or config.text_checkpoint == RANDOM):
        raise UserError("the text encoder is frozen, and no weights of it are given")
    if config.lora.rank:
        if not isinstance(start, PromptedSeparator):
            raise UserError(f"lora.rank={config.lora.rank}, and no weights of a model are given")
        params, frozen[BASE] = _adapters(plan), base_weights(start, config, plan.frozen[BASE])
    elif isinstance(start, PromptedSeparator):
        params = start_weights(start, config, plan.state.params, _alignment_head(config))
    else:
        params = nnx.as_pure(nnx.state(parallel.init_sharded(plan.make, mesh)))
    if isinstance(start, T5Encoder):
        text = nnx.as_pure(nnx.state(start))
        params["text_encoder"] = jax.device_put(text, shardings.params["text_encoder"])
    moments = jax.jit(plan.optimizer.init, out_shardings=shardings.opt_state)(params)
    ema = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, ema, moments, jax.random.key(config.seed))
    frozen["codec"] = jax.device_put(nnx.as_pure(nnx.state(codec)), parallel.replicated(mesh))
    if needs_teacher(config):
        frozen["teacher"] = nnx.as_pure(nnx.state(make_teacher(config.alignment, mesh)))
    if config.like.share:
        if audio_tower is None:
            raise UserError(f"like.share={config.like.share}, and no audio tower is given")
        weights = nnx.as_pure(nnx.state(audio_tower))
        frozen["audio_tower"] = jax.device_put(weights, parallel.replicated(mesh))
    return state, plan.step, frozen


def needs_teacher(config: TrainConfig) -> bool:
    """Whether the teacher runs inside the step; a latent cache has its features already."""
    return bool(config.alignment.weight) and not config.data.caches


def make_model(config: TrainConfig) -> PromptedSeparator:
    """The network that is trained, with random weights, and with its head if there is alignment.

    Raises `UserError` for adapters of no layer, or of the text encoder, which is frozen.
    """
    rngs = Rngs(config.seed)
    prompted = PromptedSeparator(config.text, config.separator, rngs=rngs)
    alignment, dit = config.alignment, config.separator.dit
    if alignment.weight:
        width = alignment.teacher.width
        prompted.alignment = AlignmentHead(
            dit.width, alignment.hidden, width, dtype=dit.dtype, rngs=rngs
        )
    scale_initial(prompted, config.parametrisation, dit)
    if config.lora.rank:
        layers = lora.add_adapters(
            prompted,
            config.lora.layers,
            rank=config.lora.rank,
            scale=config.lora.scale,
            rngs=rngs,
        )
        if frozen := [name for name in layers if name.startswith("text_encoder.")]:
            raise UserError(
                f"lora.layers={config.lora.layers!r} matches {frozen[0]}: the text encoder is "
                "frozen, and adapters of it would learn nothing"
            )
    return prompted


def whole_params(trained: PyTree, frozen: PyTree) -> PyTree:
    """The parameters of `make_model`'s network: those that are trained, with those of a base."""
    return lora.joined(trained, frozen[BASE]) if BASE in frozen else trained


def _step(
    config: TrainConfig,
    tx: optax.GradientTransformation,
    graph: nnx.GraphDef,
    graphs: dict[str, nnx.GraphDef],
    state: TrainState,
    batch: PyTree,
    frozen: PyTree,
) -> tuple[TrainState, Scalars]:
    def loss(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[Array, Scalars]:
        modules = {name: nnx.merge(graphs[name], frozen[name]) for name in graphs}
        prompted = nnx.merge(graph, whole_params(params, frozen))
        return separation_loss(
            *(prompted, modules["codec"], batch, key, config),
            teacher=modules.get("teacher"),
            audio_tower=modules.get("audio_tower"),
        )

    return train_step(
        state,
        batch,
        loss=loss,
        tx=tx,
        ema_decay=config.optim.ema_decay,
        accumulate=config.optim.accumulate,
        grad_metrics=None if config.lora.rank else _video_grad_norm,
    )


def _video_grad_norm(grads: PyTree) -> Scalars:
    """The norm of the video branch's gradient: 0 shows that the data has no video."""
    return {"grad_norm_video": optax.tree.norm(grads["separator"]["align_video"])}


def separation_loss(
    prompted: PromptedSeparator,
    codec: Codec,
    batch: dict[str, Array],
    key: Key[Array, ""],
    config: TrainConfig,
    teacher: Cnn14 | None = None,
    audio_tower: AudioTower | None = None,
) -> tuple[Float[Array, ""], Scalars]:
    """Flow-matching loss of target and residual, generated jointly (published), and metrics.

    Examples without video feed zeros to the video branch, as upstream does. The metrics are
    `padding`, the share of the batch's frames that is none of an example, and with weights of their
    own the terms of the loss: `flow`, and `alignment` or `refined_db`.
    """
    flow_key, dropout_key = jax.random.split(key)
    mixture, target, residual = to_latents(codec, batch)
    text = prompted.text_encoder(batch["text_ids"], batch["text_mask"])
    if not config.train_text:
        text = jax.lax.stop_gradient(text)
    text_mask = batch["text_mask"]
    if audio_tower is not None:
        stems = {"mixture": mixture, "target": target, "residual": residual}
        # A key of its own: with and without examples a step has the same noise.
        like_key = jax.random.fold_in(key, 2)
        text, text_mask = blended_prompts(
            audio_tower, stems, batch["valid"], text, text_mask, like_key, config.like
        )
    conditions = Conditions.build(
        mixture=mixture,
        text=text,
        text_mask=text_mask,
        anchors=batch["anchors"],
        video=_video(batch, config),
        video_width=config.separator.video_width,
        valid=batch["valid"],
    )
    x1 = jnp.concatenate([target, residual], axis=-1)
    noisy, time, wanted = draw_path(x1, flow_key, config.flow)
    prepared, size, rows = prompted.separator.prepare(conditions), None, None
    if config.flow.consistency_share:
        shards = parallel.axis_size("batch")
        rows = ConsistentRows.of(len(x1), config.flow.consistency_share, shards)
        noisy, time, wanted, size = with_consistency(
            _frozen_velocity(prompted.separator, prepared, rows),
            *(noisy, time, wanted, rows),
            jax.random.fold_in(key, 3),
            config.flow,
        )
    depth = config.separator.dit.depth
    velocity, hidden = prompted.separator.with_hidden(
        noisy,
        time,
        prepared,
        layer=config.alignment.layer_of(depth) if prompted.alignment else depth,
        step_size=size,
        dropout_key=dropout_key,
    )
    flow = masked_mse(velocity, wanted, batch["valid"])
    metrics = {"padding": 1 - jnp.mean(batch["valid"].astype(jnp.float32))}
    if rows is not None:
        parts = (rows.take(one) for one in (velocity, wanted, batch["valid"]))
        metrics["consistency"] = masked_mse(*parts)
    loss = flow
    if config.refined.weight:
        latents = noisy + (1 - time[:, None, None]) * velocity.astype(jnp.float32)
        stems, place = stem_waves(batch), jax.random.fold_in(key, 4)
        held, refined = refined_error_db(codec, latents, stems, place, config.refined)
        metrics |= {"flow": flow, "refined_db": refined}
        loss += config.refined.weight * held
    if prompted.alignment is not None:
        features = teacher_frames(teacher, batch, config)
        alignment = alignment_loss(prompted.alignment(hidden), features, batch["valid"])
        metrics |= {"flow": flow, "alignment": alignment}
        loss += config.alignment.weight * alignment
    return loss, metrics


def _frozen_velocity(
    separator: Separator, prepared: PreparedConditions, rows: ConsistentRows
) -> Callable[[Array, Array, Array], Array]:
    """The velocity of some rows of a batch, without dropout and without a gradient."""
    graph, state = nnx.split(separator)
    fixed = nnx.merge(graph, jax.lax.stop_gradient(nnx.as_pure(state)))
    mine = jax.tree.map(lambda x: jax.lax.stop_gradient(rows.take(x)), prepared)

    def velocity(x: Array, time: Array, size: Array) -> Array:
        return fixed.velocity(x, time, mine, step_size=size)

    return velocity


def _video(
    batch: dict[str, Array], config: TrainConfig
) -> Float[Array, "batch frames video_width"] | None:
    """The video features of a batch. Raises `UserError` for another width than the model's."""
    video, width = batch.get("video"), config.separator.video_width
    if video is not None and video.shape[-1] != width:
        raise UserError(
            f"the data has video features of {video.shape[-1]} numbers, "
            f"separator.video_width={width}"
        )
    return None if video is None else video.astype(jnp.float32)


def teacher_frames(
    teacher: Cnn14 | None, batch: dict[str, Array], config: TrainConfig
) -> Float[Array, "batch frames embedding"]:
    """The teacher features of the clean target at every latent frame, without a gradient.

    They are the cached ones where the batch has `teacher_features`, else of the target's wave.
    Raises `UserError` for cached latents without features, or with features of another width.
    """
    alignment, codec = config.alignment, config.codec
    folders = " and ".join(config.data.caches)
    if "teacher_features" in batch:
        segments, offset = (
            batch["teacher_features"].astype(jnp.float32),
            batch["teacher_features_offset"],
        )
    elif batch["target"].ndim == 3 or teacher is None:
        raise UserError(
            f"alignment.weight={alignment.weight}, but data.cache={folders} has no "
            "features of the teacher; make it again with that weight (launch/prepare.py)"
        )
    else:
        segments = teacher.features(batch["target"], codec.sample_rate, tensor=alignment.tensor)
        offset = None
    if segments.shape[-1] != alignment.teacher.width:
        raise UserError(
            f"data.cache={folders} has features of {segments.shape[-1]} numbers, "
            f"alignment.teacher makes {alignment.teacher.width}"
        )
    return to_frames(
        jax.lax.stop_gradient(segments),
        batch["valid"].shape[1],
        alignment.teacher.segment_s * codec.sample_rate / codec.hop,
        offset,
        alignment.interpolation,
    )


def to_latents(codec: Codec, batch: dict[str, Array]) -> tuple[_Latents, _Latents, _Latents]:
    """Latents of mixture, target and residual; waves `[batch, samples]` are encoded."""
    stems = [batch[name] for name in STEMS]
    if stems[0].ndim == 3:
        mixture, target, residual = (stem.astype(jnp.float32) for stem in stems)
    else:
        encoded = jax.lax.stop_gradient(codec.encode(jnp.concatenate(stems)))
        mixture, target, residual = jnp.split(encoded, len(STEMS))
    return mixture, target, residual


def stem_waves(batch: dict[str, Array]) -> Shaped[Array, "batch two samples"]:
    """Waves of target and residual: those beside cached latents, or the batch's own."""
    if "waves" in batch:
        return batch["waves"]
    return jnp.stack([batch["target"], batch["residual"]], axis=1)


def check_codec(config: TrainConfig, codec: Codec) -> None:
    """Raises `UserError` unless the codec has the sizes of the config; its scale may differ."""
    if misfit := config.codec.differences(codec.config, watermark=False):
        raise UserError(f"codec_checkpoint={config.codec_checkpoint} has {misfit}")


def _alignment_head(config: TrainConfig) -> nnx.Module | None:
    """The head of a run with alignment, sharded, as `make_model` initialises it."""
    if not config.alignment.weight:
        return None
    return parallel.init_sharded(lambda: make_model(config).alignment or nnx.Module())


def _adapters(plan: AbstractTraining) -> PyTree:
    """New adapters, on their own devices; nothing else of the network is made."""

    def make() -> PyTree:
        return lora.split_factors(nnx.as_pure(nnx.state(plan.make())))[0]

    return jax.jit(make, out_shardings=plan.shardings.params)()
