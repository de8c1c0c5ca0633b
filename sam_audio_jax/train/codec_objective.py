"""Training and validation of the codec: a VAE, with or without critics (spec/codec.md, section 10).

Parameters are `{"generator": ..., "discriminator": ...}`, optimiser states likewise; the average
(EMA) is `{"generator": ...}`. Without a discriminator its keys are missing everywhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree

from sam_audio_jax.codec import loss
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.discriminator import Discriminator
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.train.config import CodecTrainConfig, GanOptimConfig
from sam_audio_jax.train.optimizer import rate_of
from sam_audio_jax.train.step import TrainState, keep_if, update_ema

M = TypeVar("M", bound=nnx.Module)
Wave = Float[Array, "batch samples"]
Scalars = dict[str, Array]
Trained = tuple[PyTree, PyTree]  # parameters and their optimiser's state


def make_codec_training(
    config: CodecTrainConfig, codec: Codec | None = None
) -> tuple[TrainState, Callable[[TrainState, PyTree], tuple[TrainState, Scalars]]]:
    """The state at step 0, with the weights of `codec` if given, and the pure step to be jitted.

    The step takes `{"wave": [batch, samples]}`, samples a multiple of the hop. Raises `UserError`
    for a `codec` of other sizes; its scale of the latents is not used.
    """

    def make() -> Codec:
        return Codec(config.codec, rngs=nnx.Rngs(config.seed))

    if codec is None:
        graph, generator = _born(make)
    elif said := config.codec.differences(codec.config, watermark=True):
        raise UserError(f"init_from={config.init_from} has {said}")
    else:
        graph, generator = nnx.graphdef(nnx.eval_shape(make)), nnx.as_pure(nnx.state(codec))
    optimizer = make_optimizer(config.optim, config.optim.clip_norm)
    params, game = {"generator": generator}, None
    opt_state = {"generator": jax.jit(optimizer.init)(generator)}
    if config.loss.needs_discriminator:
        critics, params["discriminator"] = _born(
            lambda: Discriminator(config.discriminator, rngs=nnx.Rngs(config.seed + 1))
        )
        judges = make_optimizer(config.optim, config.optim.discriminator_clip_norm)
        opt_state["discriminator"] = jax.jit(judges.init)(params["discriminator"])
        game = _Discriminators(config.loss, critics, judges)
    step = _CodecStep(config.codec, config.loss, config.optim.ema_decay, graph, optimizer, game)
    ema = {"generator": params["generator"]}
    return TrainState(jnp.int32(0), params, ema, opt_state, jax.random.key(config.seed)), step


def _born(make: Callable[[], M]) -> tuple[nnx.GraphDef[M], PyTree]:
    """Structure and parameters; compiled as one program, which is faster than one per weight."""
    graph = nnx.graphdef(nnx.eval_shape(make))
    return graph, jax.jit(lambda: nnx.as_pure(nnx.state(make())))()


def make_optimizer(config: GanOptimConfig, clip_norm: float) -> optax.GradientTransformation:
    """AdamW whose rate shrinks at every step. An untrained watermark does not decay (ours)."""
    log_decay = float(np.log(config.rate_decay))

    def rate(step: ArrayLike) -> Array:
        step = jnp.asarray(step)
        return rate_of(step, config.peak_lr, config.warmup_steps) * jnp.exp(log_decay * step)

    def decays(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "watermark" not in jax.tree_util.keystr(path), params
        )

    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(
            rate,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )


@dataclasses.dataclass(frozen=True)
class _Discriminators:
    """The discriminators' half of a training step."""

    config: CodecLossConfig
    graph: nnx.GraphDef[Discriminator]
    optimizer: optax.GradientTransformation

    def update(
        self, step: Int[Array, ""], params: PyTree, moments: PyTree, wave: Wave, fake: Wave
    ) -> tuple[Trained, Float[Array, ""], Wave, Scalars]:
        """Updates the discriminators, then gives the generator's loss against the updated ones.

        The results are (weights, moments), the loss, its gradient with respect to `fake`, metrics.
        Before `adversarial_start` the discriminators neither run nor change.
        """

        def train() -> tuple[Trained, Float[Array, ""], Wave, Scalars]:
            own_loss, grads = jax.value_and_grad(self.loss)(params, wave, fake)
            trained = apply(self.optimizer, grads, moments, params)
            against = jax.value_and_grad(self.generator_loss, has_aux=True)
            (value, terms), slope = against(fake, wave, trained[0])
            terms |= {"discriminator": own_loss, "discriminator_grad_norm": optax.tree.norm(grads)}
            return trained, value, slope, terms

        def skip() -> tuple[Trained, Float[Array, ""], Wave, Scalars]:
            _, *rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(train))
            return (params, moments), *rest

        if not self.config.adversarial_start:
            return train()
        return jax.lax.cond(step >= self.config.adversarial_start, train, skip)

    def loss(self, params: PyTree, wave: Wave, fake: Wave) -> Float[Array, ""]:
        """The discriminators' own loss, with real and fake rows in one pass."""
        maps = nnx.merge(self.graph, params)(jnp.concatenate([wave, fake]))
        rows = len(wave)
        real = [[x[:rows] for x in each] for each in maps]
        return loss.discriminator_loss(real, [[x[rows:] for x in each] for each in maps])

    def generator_loss(
        self, fake: Wave, wave: Wave, params: PyTree
    ) -> tuple[Float[Array, ""], Scalars]:
        """The generator's losses that need discriminators."""
        discriminators = nnx.merge(self.graph, params)
        theirs, ours = discriminators(wave), discriminators(fake)
        adversarial = loss.adversarial_loss(ours)
        matching = loss.feature_matching_loss(theirs, ours)
        value = self.config.adversarial * adversarial + self.config.feature_matching * matching
        return value, {"adversarial": adversarial, "feature_matching": matching}


@dataclasses.dataclass(frozen=True)
class _CodecStep:
    """Generator forward once; critics on the detached result; generator with the fresh critics.

    A step in which any loss or gradient is not finite leaves all weights and moments as they were.
    """

    codec: CodecConfig
    loss: CodecLossConfig
    ema_decay: float
    graph: nnx.GraphDef[Codec]
    optimizer: optax.GradientTransformation
    discriminators: _Discriminators | None

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Scalars]:
        wave, key = batch["wave"], jax.random.fold_in(state.key, state.step)
        params, opt_state = dict(state.params), dict(state.opt_state)
        (fake, divergence), pull = jax.vjp(
            lambda generator: self.reconstruct(generator, wave, key), params["generator"]
        )
        weigh = jax.value_and_grad(self.weigh, argnums=(0, 1), has_aux=True)
        (value, metrics), (to_fake, to_divergence) = weigh(fake, divergence, wave)
        finite = jnp.bool_(True)
        if self.discriminators is not None:
            trained, against, slope, terms = self.discriminators.update(
                state.step, params["discriminator"], opt_state["discriminator"], wave, fake
            )
            params["discriminator"], opt_state["discriminator"] = trained
            value, to_fake, metrics = value + against, to_fake + slope, metrics | terms
            finite = jnp.isfinite(terms["discriminator"] + terms["discriminator_grad_norm"])
        (grads,) = pull((to_fake, to_divergence))
        norm = optax.tree.norm(grads)
        params["generator"], opt_state["generator"] = apply(
            self.optimizer, grads, opt_state["generator"], params["generator"]
        )
        mean = update_ema(state.ema["generator"], params["generator"], state.step, self.ema_decay)
        finite &= jnp.isfinite(value) & jnp.isfinite(norm)
        params, ema, opt_state = keep_if(
            finite,
            (params, {"generator": mean}, opt_state),
            (state.params, state.ema, state.opt_state),
        )
        metrics |= {"loss": value, "grad_norm": norm, "skipped": ~finite}
        return TrainState(state.step + 1, params, ema, opt_state, state.key), metrics

    def reconstruct(
        self, params: PyTree, wave: Wave, key: Key[Array, ""]
    ) -> tuple[Wave, Float[Array, ""]]:
        """The wave decoded from a sample of the posterior, and the posterior's KL."""
        codec = nnx.merge(self.graph, params)
        mean, stdev = codec.moments(wave)
        latents = mean + stdev * jax.random.normal(key, mean.shape)
        fake = codec.decode((latents - self.codec.mean) / self.codec.std)
        return fake, loss.kl(mean, stdev)

    def weigh(
        self, fake: Wave, divergence: Float[Array, ""], wave: Wave
    ) -> tuple[Float[Array, ""], Scalars]:
        """The generator's losses that need no critics; those of weight 0 are not computed."""
        weights = self.loss
        terms = {"kl": divergence, "waveform": loss.waveform_metric(wave, fake)}
        value = weights.kl * divergence + weights.waveform * terms["waveform"]
        if weights.mel:
            terms["mel"] = loss.mel_loss(
                wave, fake, self.codec.sample_rate, weights.mel_scales, weights.mel_offset
            )
            value += weights.mel * terms["mel"]
        if weights.stft:
            terms["stft"] = loss.stft_metric(wave, fake, weights.stft_windows)
            value += weights.stft * terms["stft"]
        return value, terms


def apply(
    optimizer: optax.GradientTransformation, grads: PyTree, moments: PyTree, params: PyTree
) -> Trained:
    updates, moments = optimizer.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments


def posterior_means(
    codec: Codec, waves: Iterable[Float[np.ndarray, "_ _"]]
) -> Float[np.ndarray, "frames channels"]:
    """Latents of all rows of all batches, as `Codec.moments` gives them: not normalised."""
    graph, params = nnx.graphdef(codec), nnx.as_pure(nnx.state(codec))
    means = [np.asarray(_means(graph, params, jnp.asarray(wave))) for wave in waves]
    return np.concatenate(means).reshape(-1, codec.config.codebook_dim)


@functools.partial(jax.jit, static_argnums=0)
def _means(graph: nnx.GraphDef[Codec], params: PyTree, wave: Wave) -> Array:
    return nnx.merge(graph, params).moments(wave)[0]


def evaluate_codec(
    codec: Codec,
    waves: Iterable[Float[np.ndarray, "_ _"]],
    config: CodecLossConfig | None = None,
) -> dict[str, float]:
    """`codec_metrics` and KL of the deterministic round trip, averaged over rows of all batches.

    Batches are [rows, samples], samples a multiple of the hop; every shape is compiled once.

    Raises:
      UserError: no wave was given.
    """
    graph, params = nnx.graphdef(codec), nnx.as_pure(nnx.state(codec))
    config = config or CodecLossConfig()
    totals: dict[str, float] = {}
    rows = 0
    for wave in waves:
        for name, value in jax.device_get(
            _measure(graph, config, params, jnp.asarray(wave))
        ).items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(wave)
        rows += len(wave)
    if not rows:
        raise UserError("no recordings to evaluate the codec on; at least one is needed")
    return {name: total / rows for name, total in totals.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(
    graph: nnx.GraphDef[Codec], config: CodecLossConfig, params: PyTree, wave: Wave
) -> Scalars:
    codec = nnx.merge(graph, params)
    mean, stdev = codec.moments(wave)
    fake = codec.decode((mean - codec.config.mean) / codec.config.std)
    measured = loss.codec_metrics(wave, fake, codec.config.sample_rate, config)
    return measured | {"kl": loss.kl(mean, stdev)}
