"""Training and validation of the codec (docs/codec.md, "Training").

The codec is a variational autoencoder, trained with or without a discriminator.

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
from jaxtyping import Array, Float, Int, Key, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec import loss
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.discriminator import Discriminator
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.codec.mask_loss import mask_error_db
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train.config import CodecTrainConfig
from sam_audio_jax.train.optimizer import codec_decay_mask, decaying_schedule, make_optimizer
from sam_audio_jax.train.step import Scalars, Step, TrainState, apply_gradients, finish_step

METRICS = ("kl", "mel", "si_sdr_db", "stft", "waveform")  # by `evaluate_codec`

M = TypeVar("M", bound=nnx.Module)
_Wave = Float[Array, "batch samples"]


def make_codec_training(
    config: CodecTrainConfig, codec: Codec | None = None
) -> tuple[TrainState, Step]:
    """The state at step 0, with the weights of `codec` if any, and the pure step to be jitted.

    The step takes `{"wave": [batch, samples]}`, samples a multiple of the hop. Raises `UserError`
    for a `codec` of other sizes; its scale of the latents is not used.
    """
    optim = config.optim
    adamw = functools.partial(make_optimizer, optim, decaying_schedule(optim), codec_decay_mask)

    def make() -> Codec:
        return Codec(config.codec, rngs=Rngs(config.seed))

    if codec is None:
        graph, generator = _initialised(make)
    elif misfit := config.codec.differences(codec.config, watermark=True):
        raise UserError(f"init_from={config.init_from} has {misfit}")
    else:
        graph, generator = nnx.graphdef(nnx.eval_shape(make)), nnx.as_pure(nnx.state(codec))
    tx = adamw(frozen=config.frozen)
    params, opt_state = {"generator": generator}, {"generator": jax.jit(tx.init)(generator)}
    discriminator = None
    if config.loss.needs_discriminator:
        discriminator_graph, params["discriminator"] = _initialised(
            lambda: Discriminator(config.discriminator, rngs=Rngs(config.seed + 1))
        )
        discriminator_tx = adamw(clip_norm=optim.discriminator_clip_norm)
        opt_state["discriminator"] = jax.jit(discriminator_tx.init)(params["discriminator"])
        discriminator = _DiscriminatorStep(config.loss, discriminator_graph, discriminator_tx)
    latents_stay = {"encoder", "in_proj"} <= set(config.frozen)
    step = _CodecStep(
        config.codec, config.loss, optim.ema_decay, graph, tx, discriminator, latents_stay
    )
    ema = {"generator": params["generator"]}
    return TrainState(jnp.int32(0), params, ema, opt_state, jax.random.key(config.seed)), step


def _initialised(make: Callable[[], M]) -> tuple[nnx.GraphDef[M], PyTree]:
    graph, state = nnx.split(parallel.init_sharded(make))
    return graph, nnx.as_pure(state)


@dataclasses.dataclass(frozen=True)
class _DiscriminatorStep:
    """The discriminator's part of a training step."""

    config: CodecLossConfig
    graph: nnx.GraphDef[Discriminator]
    tx: optax.GradientTransformation

    def __call__(
        self, step: Int[Array, ""], params: PyTree, opt_state: PyTree, real: _Wave, fake: _Wave
    ) -> tuple[PyTree, PyTree, Float[Array, ""], _Wave, Scalars]:
        """Updates the discriminator and evaluates the generator's loss against the updated one.

        Returns the discriminator's parameters and state of the optimiser, the generator's loss, its
        gradient with respect to `fake`, and metrics. Before `adversarial_start` the discriminator
        neither runs nor changes, and the loss is 0.
        """

        def train() -> tuple[PyTree, PyTree, Float[Array, ""], _Wave, Scalars]:
            own_loss, grads = jax.value_and_grad(self.loss)(params, real, fake)
            new, new_opt_state = apply_gradients(self.tx, grads, opt_state, params)
            generator_loss = jax.value_and_grad(self.generator_loss, has_aux=True)
            (value, metrics), fake_grad = generator_loss(fake, real, new)
            metrics |= {
                "discriminator": own_loss,
                "discriminator_grad_norm": optax.tree.norm(grads),
            }
            return new, new_opt_state, value, fake_grad, metrics

        def skip() -> tuple[PyTree, PyTree, Float[Array, ""], _Wave, Scalars]:
            _, _, *rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(train))
            return params, opt_state, *rest

        if not self.config.adversarial_start:
            return train()
        return jax.lax.cond(step >= self.config.adversarial_start, train, skip)

    def loss(self, params: PyTree, real: _Wave, fake: _Wave) -> Float[Array, ""]:
        """The discriminator's own loss, with real and fake rows in one pass."""
        maps = nnx.merge(self.graph, params)(jnp.concatenate([real, fake]))
        rows = len(real)
        return loss.discriminator_loss(
            [[x[:rows] for x in each] for each in maps], [[x[rows:] for x in each] for each in maps]
        )

    def generator_loss(
        self, fake: _Wave, real: _Wave, params: PyTree
    ) -> tuple[Float[Array, ""], Scalars]:
        """The adversarial and the feature matching loss of the generator."""
        discriminator = nnx.merge(self.graph, params)
        real_maps, fake_maps = discriminator(real), discriminator(fake)
        adversarial = loss.adversarial_loss(fake_maps)
        matching = loss.feature_matching_loss(real_maps, fake_maps)
        value = self.config.adversarial * adversarial + self.config.feature_matching * matching
        return value, {"adversarial": adversarial, "feature_matching": matching}


@dataclasses.dataclass(frozen=True)
class _CodecStep:
    """One step of generator and discriminator, in DAC's order.

    The generator runs forward once; the discriminator is updated on its detached result; then the
    generator is updated against the updated discriminator. A step in which any loss or gradient is
    not finite changes no weights and no moments.
    """

    codec: CodecConfig
    loss: CodecLossConfig
    ema_decay: float
    graph: nnx.GraphDef[Codec]
    tx: optax.GradientTransformation
    discriminator: _DiscriminatorStep | None
    latents_stay: bool  # no gradient is needed before the decoder

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Scalars]:
        wave, key = batch["wave"], jax.random.fold_in(state.key, state.step)
        params, opt_state = dict(state.params), dict(state.opt_state)
        (fake, divergence), backward = jax.vjp(
            lambda generator: self.reconstruct(generator, wave, key), params["generator"]
        )
        reconstruction = jax.value_and_grad(self.reconstruction_loss, argnums=(0, 1), has_aux=True)
        (value, metrics), (fake_grad, kl_grad) = reconstruction(fake, divergence, wave)
        finite = True
        if self.discriminator is not None:
            params["discriminator"], opt_state["discriminator"], extra, extra_grad, terms = (
                self.discriminator(
                    state.step, params["discriminator"], opt_state["discriminator"], wave, fake
                )
            )
            value, fake_grad, metrics = value + extra, fake_grad + extra_grad, metrics | terms
            finite = jnp.isfinite(terms["discriminator"] + terms["discriminator_grad_norm"])
        (grads,) = backward((fake_grad, kl_grad))
        params["generator"], opt_state["generator"] = apply_gradients(
            self.tx, grads, opt_state["generator"], params["generator"]
        )
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        averaged = {"generator": params["generator"]}
        return finish_step(
            state,
            params,
            opt_state,
            metrics,
            averaged=averaged,
            ema_decay=self.ema_decay,
            finite=finite,
        )

    def reconstruct(
        self, params: PyTree, wave: _Wave, key: Key[Array, ""]
    ) -> tuple[_Wave, Float[Array, ""]]:
        """The wave decoded from a sample of the posterior, and the posterior's KL."""
        codec = nnx.merge(self.graph, params)
        mean, stdev = codec.moments(wave)
        if self.latents_stay:
            mean, stdev = jax.lax.stop_gradient((mean, stdev))
        latents = mean + stdev * jax.random.normal(key, mean.shape)
        fake = codec.decode((latents - self.codec.mean) / self.codec.std)
        return fake, loss.kl(mean, stdev)

    def reconstruction_loss(
        self, fake: _Wave, divergence: Float[Array, ""], wave: _Wave
    ) -> tuple[Float[Array, ""], Scalars]:
        """The generator's losses without a discriminator; those of weight 0 are not computed."""
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
        if weights.mask:
            terms["mask_db"] = mask_error_db(wave, fake, self.codec.sample_rate)
            value += weights.mask * terms["mask_db"]
        return value, terms


def posterior_means(
    codec: Codec, waves: Iterable[Float[np.ndarray, "_ _"]]
) -> Float[np.ndarray, "frames channels"]:
    """Means of the posterior of all rows of all batches, not normalised (see `Codec.moments`)."""
    compiled = Compiled(codec)
    means = [np.asarray(compiled(_posterior_means, wave)) for wave in waves]
    return np.concatenate(means).reshape(-1, codec.config.codebook_dim)


def _posterior_means(codec: Codec, wave: _Wave) -> Array:
    return codec.moments(wave)[0]


def evaluate_codec(
    codec: Codec,
    waves: Iterable[Float[np.ndarray, "_ _"]],
    config: CodecLossConfig | None = None,
) -> dict[str, float]:
    """`codec_metrics` and KL of the deterministic round trip, averaged over rows of all batches.

    Batches are [rows, samples], samples a multiple of the hop; every shape is compiled once. Raises
    `UserError` when `waves` is empty.
    """
    compiled = Compiled(codec)
    config = config or CodecLossConfig()
    totals: dict[str, float] = {}
    rows = 0
    for wave in waves:
        measured = compiled(_round_trip_metrics, wave, config=config)
        for name, value in jax.device_get(measured).items():
            totals[name] = totals.get(name, 0.0) + float(value) * len(wave)
        rows += len(wave)
    if not rows:
        raise UserError("no recordings to evaluate the codec on; at least one is needed")
    return {name: total / rows for name, total in totals.items()}


def _round_trip_metrics(codec: Codec, wave: _Wave, *, config: CodecLossConfig) -> Scalars:
    mean, stdev = codec.moments(wave)
    fake = codec.decode((mean - codec.config.mean) / codec.config.std)
    measured = loss.codec_metrics(wave, fake, codec.config.sample_rate, config)
    return measured | {"kl": loss.kl(mean, stdev)}
