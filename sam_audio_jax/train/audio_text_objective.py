"""Training of an audio tower among frozen word vectors (docs/training.md, "Audio tower").

The loss is one half of CLIP's (arXiv 2103.00020): each sound is to find its caption. Texts do not
learn, so a sound is compared with *all* captions of the training and not with those of its batch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.encoders.audio_tower import AudioTower
from sam_audio_jax.encoders.text_means import unit
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train.config import AudioTextTrainConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import Scalars, Step, TrainState, train_step

FIXED = ("length",)  # parameters of a tower that no optimiser changes
LARGEST_SCALE = 100.0  # of the cosines in the loss, as in CLIP


def initial_tower(
    config: AudioTextTrainConfig, means: Float[np.ndarray, "captions width"], mesh: Mesh
) -> AudioTower:
    """The tower at step 0, sharded over the mesh; `means` are those of the captions' vectors."""
    seed = config.seed
    tower = parallel.init_sharded(lambda: AudioTower(config.audio_tower, rngs=Rngs(seed)), mesh)
    usual = np.full(1, np.mean(np.linalg.norm(means, axis=1)), np.float32)
    tower.length[...] = jax.device_put(usual, tower.length[...].sharding)
    return tower


def make_audio_text_training(
    config: AudioTextTrainConfig,
    tower: AudioTower,
    means: Float[np.ndarray, "captions width"],
    mesh: Mesh,
) -> tuple[TrainState, Step, PyTree]:
    """The state at step 0, the pure step, and the vectors of the captions, of length 1.

    The step is `step(state, batch, vectors) -> (state, metrics)`, with the batches of
    `data.captioned_latents.CaptionedLatents`.
    """
    graph, params = nnx.split(tower)
    tx = make_optimizer(config.optim, constant_schedule(config.optim), decay_mask, frozen=FIXED)
    shardings = parallel.parameter_shardings(params, mesh)
    params = jax.device_put(nnx.as_pure(params), shardings)
    moments = jax.jit(
        tx.init, out_shardings=parallel.optimizer_shardings(tx, params, shardings, mesh)
    )(params)
    ema = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, ema, moments, jax.random.key(config.seed))
    vectors = jax.device_put(unit(np.asarray(means, np.float32)), parallel.replicated(mesh))

    def step(state: TrainState, batch: PyTree, frozen: PyTree) -> tuple[TrainState, Scalars]:
        def loss(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[Array, Scalars]:
            del key  # nothing is drawn
            return audio_text_loss(nnx.merge(graph, params), batch, frozen["captions"]["vectors"])

        return train_step(
            state,
            batch,
            loss=loss,
            tx=tx,
            ema_decay=config.optim.ema_decay,
            accumulate=config.optim.accumulate,
        )

    return state, step, {"captions": {"vectors": vectors}}


def audio_text_loss(
    tower: AudioTower, batch: dict[str, Array], vectors: Float[Array, "captions embedding"]
) -> tuple[Float[Array, ""], Scalars]:
    """The mean cross-entropy, and the share of the batch whose caption is found first."""
    sounds = tower(batch["latents"], batch["valid"])
    cosines = jnp.matmul(sounds, vectors.T, precision="highest")
    scale = jnp.minimum(jnp.exp(tower.scale[...]), LARGEST_SCALE)
    losses, found = caption_losses(cosines, scale, batch["caption"], batch["wrong"])
    metrics = {"top1": jnp.mean(found.astype(jnp.float32)), "scale": scale[0]}
    return jnp.mean(losses), metrics


def caption_losses(
    cosines: Float[Array, "batch captions"],
    scale: Float[Array, " 1"],
    caption: Int[Array, " batch"],
    wrong: Bool[Array, "batch captions"],
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    """Cross-entropy of each sound's caption among it and the wrong ones; whether it is the nearest.

    Captions that are neither do not count: another name of the same sound is no error.
    """
    wanted = caption[:, None] == jnp.arange(cosines.shape[1])
    logits = jnp.where(wrong | wanted, cosines * scale, -jnp.inf)
    own = jnp.sum(jnp.where(wanted, logits, 0), axis=1)
    return jax.nn.logsumexp(logits, axis=1) - own, own >= jnp.max(logits, axis=1)


@functools.cache
def cosines_of(graph: nnx.GraphDef[AudioTower]):
    """The jitted function `(params, vectors, latents, valid) -> cosines [batch, captions]`."""

    def run(
        params: PyTree,
        vectors: Float[Array, "captions embedding"],
        latents: Float[Array, "batch frames channels"],
        valid: Bool[Array, "batch frames"],
    ) -> Float[Array, "batch captions"]:
        sounds = nnx.merge(graph, params)(latents, valid)
        return jnp.matmul(sounds, vectors.T, precision="highest")

    return jax.jit(run)
