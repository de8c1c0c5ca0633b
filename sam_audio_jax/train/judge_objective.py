"""Training of a judge on ratings (docs/scoring.md, "Training a judge").

The loss and its numbers are ours: what the paper trained with is not published.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Key, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.data.encoded_sounds import Stage
from sam_audio_jax.scorers.judge import AXES, Judge
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import Scalars, Step, TrainState, train_step

STATISTICS = ("mean", "std")  # parameters of a judge that no optimiser changes
TEXT_VECTORS = ("text", "embed")  # the path of what `frozen` calls text_vectors
TEMPERATURE = 0.07  # of the contrast (ours)


def make_judge_training(
    config: JudgeTrainConfig, judge: Judge, mesh: Mesh, stage: Stage = ""
) -> tuple[TrainState, Step, PyTree]:
    """The state at step 0, the pure step, and the frozen weights.

    `judge` is sharded over `mesh`. The step is `step(state, batch, frozen) -> (state, metrics)`,
    with the batches of `data.ratings.RatedExamples`, whose sounds are at `stage`.
    """
    graph, fixed, learning = split_judge(judge, config)
    tx = make_optimizer(
        config.optim, constant_schedule(config.optim), decay_mask, frozen=STATISTICS
    )
    shardings = parallel.parameter_shardings(learning, mesh)
    params = jax.device_put(nnx.as_pure(learning), shardings)
    moments = jax.jit(
        tx.init, out_shardings=parallel.optimizer_shardings(tx, params, shardings, mesh)
    )(params)
    frozen = jax.device_put(nnx.as_pure(fixed), parallel.parameter_shardings(fixed, mesh))
    ema = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, ema, moments, jax.random.key(config.seed))

    def step(state: TrainState, batch: PyTree, frozen: PyTree) -> tuple[TrainState, Scalars]:
        def loss(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[Array, Scalars]:
            del key  # nothing is drawn
            judge = nnx.merge(graph, frozen, params)
            if config.loss == "contrast":
                return contrast_loss(judge, batch, stage), {}
            return judge_loss(judge, batch, config.loss, stage)

        return train_step(
            state,
            batch,
            loss=loss,
            tx=tx,
            ema_decay=config.optim.ema_decay,
            accumulate=config.optim.accumulate,
        )

    return state, step, frozen


def split_judge(
    judge: Judge, config: JudgeTrainConfig
) -> tuple[nnx.GraphDef[Judge], nnx.State, nnx.State]:
    """The graph, the weights that `config.frozen` names, and all others."""

    def is_frozen(path: tuple[Any, ...], _: Any) -> bool:
        if path[: len(TEXT_VECTORS)] == TEXT_VECTORS and "text_vectors" in config.frozen:
            return True
        return path[0] in config.frozen

    graph, frozen, params = nnx.split(judge, is_frozen, ...)
    return graph, frozen, params


def embedded(
    judge: Judge, batch: dict[str, Array], name: str, stage: Stage
) -> Float[Array, "batch frames width"]:
    """The frames of the mixtures or of the separated sounds of a batch."""
    sounds = batch[name]
    if stage == "frames":
        return sounds
    latents = sounds if stage == "latents" else judge.latents(sounds)
    return judge.embed_audio(latents, batch["valid"])


def standardised(judge: Judge, batch: dict[str, Array], stage: Stage) -> Float[Array, "batch axes"]:
    """Standardised scores of a batch."""
    mixture = embedded(judge, batch, "mixture", stage)
    separated = embedded(judge, batch, "separated", stage)
    text = judge.embed_text(batch["text_ids"], batch["text_mask"])
    return judge.of_frames(mixture, separated, text, batch["valid"])


def contrast_loss(judge: Judge, batch: dict[str, Array], stage: Stage) -> Float[Array, ""]:
    """How badly the separated sounds of a batch find their texts, and texts their sounds.

    Both are vectors of length 1 in the width of the audio transformer: the mean of its frames, and
    the text after the first projection. Rows of one text are all right answers to each other. The
    form is that of CLIP (arXiv 2103.00020); the judge's own encoders were trained like this.
    """
    frames = embedded(judge, batch, "separated", stage)
    sounds = jnp.mean(frames, axis=1, where=batch["valid"][:, :, None])
    texts = judge.widen_text(judge.text(batch["text_ids"], batch["text_mask"])[:, 0])
    sounds, texts = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (sounds, texts))
    logits = sounds.astype(jnp.float32) @ texts.astype(jnp.float32).T / TEMPERATURE
    ids = batch["text_ids"]
    same = jnp.all(ids[:, None] == ids[None], axis=-1)
    right = same / jnp.sum(same, axis=1, keepdims=True)
    both = (jax.nn.log_softmax(logits, axis=axis) for axis in (1, 0))
    by_sound, by_text = (-jnp.mean(jnp.sum(right * one, axis=1)) for one in both)
    return (by_sound + by_text) / 2


def judge_loss(
    judge: Judge, batch: dict[str, Array], kind: str, stage: Stage = ""
) -> tuple[Float[Array, ""], Scalars]:
    """The mean over the axes of the error of standardised scores, and that of each axis.

    Axes without a rating in the batch do not count. `kind` is "l1" or "mse".
    """
    scores = standardised(judge, batch, stage)
    mean, std = (jax.lax.stop_gradient(x[...]) for x in (judge.mean, judge.std))
    errors, counted = axis_errors(scores, (batch["ratings"] - mean) / std, batch["rated"], kind)
    loss = jnp.sum(errors) / jnp.maximum(jnp.sum(counted), 1)
    return loss, {f"loss_{axis}": error for axis, error in zip(AXES, errors, strict=True)}


def axis_errors(
    scores: Float[Array, "batch axes"],
    wanted: Float[Array, "batch axes"],
    rated: Bool[Array, "batch axes"],
    kind: str,
) -> tuple[Float[Array, " axes"], Bool[Array, " axes"]]:
    """The mean error of each axis over the items that have a rating, 0 without; which have any."""
    difference = jnp.where(rated, scores - wanted, 0)
    errors = jnp.abs(difference) if kind == "l1" else jnp.square(difference)
    count = jnp.sum(rated, axis=0)
    return jnp.sum(errors, axis=0) / jnp.maximum(count, 1), count > 0


@functools.cache
def scores_of(graph: nnx.GraphDef[Judge], stage: Stage = ""):
    """The jitted function `(frozen, params, batch) -> scores [batch, axes]` on the raters' scale.

    The weights are those of `split_judge`.
    """

    def run(frozen: PyTree, params: PyTree, batch: dict[str, Array]) -> Float[Array, "batch axes"]:
        judge = nnx.merge(graph, frozen, params)
        return jnp.stack(judge.on_scale(standardised(judge, batch, stage)), axis=-1)

    return jax.jit(run)
