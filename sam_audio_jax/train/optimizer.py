"""AdamW with a linear warm-up and a constant rate (spec/training.md, "Schedule")."""

import functools
import re

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from sam_audio_jax.train.config import OptimConfig

# Which parameters decay is ours: matrices and kernels do; by name, because stacked layers turn
# vectors into matrices.
UNDECAYED = re.compile(r"norm|bias|gate_|table|embed|alpha|scale|gain", re.IGNORECASE)


def decay_mask(params: PyTree) -> PyTree:
    """True where weight decay applies: neither norms, biases, gates, tables, embeddings, alphas."""

    def decays(path: tuple, _: jax.Array) -> bool:
        return UNDECAYED.search(jax.tree_util.keystr(path)) is None

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    rate = functools.partial(rate_of, peak=config.peak_lr, warmup=config.warmup_steps)
    return optax.chain(
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


def rate_of(step: Int[Array, ""], peak: float, warmup: int) -> Float[Array, ""]:
    """Linear warm-up, then constant (published); the first step already moves."""
    return peak * jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))
