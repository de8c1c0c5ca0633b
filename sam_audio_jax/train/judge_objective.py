"""Training of a judge on ratings (docs/scoring.md, "Training a judge").

The loss and its numbers are ours: what the paper trained with is not published.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Key, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.scorers.judge import AXES, Judge
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import Scalars, Step, TrainState, train_step

STATISTICS = ("mean", "std")  # parameters of a judge that no optimiser changes


def make_judge_training(
    config: JudgeTrainConfig, judge: Judge, mesh: Mesh
) -> tuple[TrainState, Step, PyTree]:
    """The state at step 0, the pure step, and the frozen weights.

    `judge` is sharded over `mesh`. The step is `step(state, batch, frozen) -> (state, metrics)`,
    with the batches of `data.ratings.RatedExamples`.
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
            return judge_loss(nnx.merge(graph, frozen, params), batch, config.loss)

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
    graph, frozen, params = nnx.split(judge, lambda path, _: path[0] in config.frozen, ...)
    return graph, frozen, params


def judge_loss(
    judge: Judge, batch: dict[str, Array], kind: str
) -> tuple[Float[Array, ""], Scalars]:
    """The mean over the axes of the error of standardised scores, and that of each axis.

    Axes without a rating in the batch do not count. `kind` is "l1" or "mse".
    """
    scores = judge.standardised(
        batch["mixture"],
        batch["separated"],
        batch["text_ids"],
        batch["text_mask"],
        valid=batch["valid"],
    )
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
def scores_of(graph: nnx.GraphDef[Judge]):
    """The jitted function `(frozen, params, batch) -> scores [batch, axes]` on the raters' scale.

    The weights are those of `split_judge`.
    """

    def run(frozen: PyTree, params: PyTree, batch: dict[str, Array]) -> Float[Array, "batch axes"]:
        scores = nnx.merge(graph, frozen, params)(
            batch["mixture"],
            batch["separated"],
            batch["text_ids"],
            batch["text_mask"],
            valid=batch["valid"],
        )
        return jnp.stack(scores, axis=-1)

    return jax.jit(run)
