"""AdamW for separator and codec, and their schedules of the rate (docs/training.md, "Schedule")."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from sam_audio_jax.train.config import GanOptimConfig, OptimConfig

# Which parameters decay is ours: matrices and kernels do. By name, because stacked layers turn
# vectors into matrices.
UNDECAYED = frozenset(
    ("scale", "bias", "gate", "modulation", "embed", "embedding", "alpha", "distance_bias")
)


def make_optimizer(
    config: OptimConfig,
    schedule: optax.Schedule,
    mask: Callable[[PyTree], PyTree],
    *,
    clip_norm: float | None = None,
    frozen: tuple[str, ...] = (),
    rates: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW with the rate of `schedule`.

    Weight decay applies where `mask(params)` is True. `clip_norm` replaces `config.clip_norm`.
    `frozen` names top-level parts that get no update and no moments. `rates` scales the updates of
    Adam, before the decay is added (`parametrisation.scale_rates`).
    """
    clip = optax.clip_by_global_norm(config.clip_norm if clip_norm is None else clip_norm)
    if rates is None:
        adamw = optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=mask,
        )
    else:
        adamw = optax.chain(
            optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.eps),
            rates,
            optax.add_decayed_weights(config.weight_decay, mask),
            optax.scale_by_learning_rate(schedule),
        )
    adamw = optax.chain(clip, adamw)
    if not frozen:
        return adamw

    def labels(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _name(path[0]) in frozen else "free", params
        )

    return optax.partition({"free": adamw, "frozen": optax.set_to_zero()}, labels)


def constant_schedule(config: OptimConfig) -> optax.Schedule:
    """The separator's rate: a linear warm-up, then the constant peak rate."""
    return lambda step: rate_of(jnp.asarray(step), config.peak_lr, config.warmup_steps)


def decaying_schedule(config: GanOptimConfig) -> optax.Schedule:
    """The codec's rate: the same, and it shrinks by `rate_decay` after every step."""
    log_decay = math.log(config.rate_decay)

    def rate(step: Any) -> Any:
        step = jnp.asarray(step)
        return rate_of(step, config.peak_lr, config.warmup_steps) * jnp.exp(log_decay * step)

    return rate


def rate_of(step: Int[Array, ""], peak: float, warmup: int) -> Float[Array, ""]:
    """Linear warm-up, then constant (published); the rate of the first step is not 0."""
    return peak * jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))


def decay_mask(params: PyTree) -> PyTree:
    """The separator's mask: neither norms, biases, gates, tables, embeddings nor alphas decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _name(path[-1]) not in UNDECAYED, params
    )


def codec_decay_mask(params: PyTree) -> PyTree:
    """The codec's mask: all parameters decay (published) but an untrained watermark (ours)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "watermark" not in jax.tree_util.keystr(path), params
    )


def _name(entry: Any) -> str:
    return str(getattr(entry, "key", entry))
