"""AdamW with a linear warm-up and a constant rate (spec/training.md, "Schedule")."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from sam_audio_jax.train.config import OptimConfig

# Which parameters decay is ours: matrices and kernels do. By name, because stacked layers turn
# vectors into matrices.
UNDECAYED = frozenset(
    ("scale", "bias", "gate", "modulation", "embed", "embedding", "alpha", "distance_bias")
)


def decay_mask(params: PyTree) -> PyTree:
    """True where weight decay applies: neither norms, biases, gates, tables, embeddings, alphas."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        return _name(path[-1]) not in UNDECAYED

    return jax.tree_util.tree_map_with_path(decays, params)


def _name(entry: Any) -> str:
    return str(getattr(entry, "key", entry))


def make_optimizer(
    config: OptimConfig, frozen: tuple[str, ...] = ()
) -> optax.GradientTransformation:
    """Clipping, then AdamW. `frozen` names top-level parts that get no update and no moments."""

    def rate(step: Any) -> Any:
        return rate_of(step, config.peak_lr, config.warmup_steps)

    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            rate,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )
    if not frozen:
        return adamw

    def labels(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _name(path[0]) in frozen else "free", params
        )

    return optax.partition({"free": adamw, "frozen": optax.set_to_zero()}, labels)


def rate_of(step: Int[Array, ""], peak: float, warmup: int) -> Float[Array, ""]:
    """Linear warm-up, then constant (published); the first step already moves."""
    return peak * jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))
