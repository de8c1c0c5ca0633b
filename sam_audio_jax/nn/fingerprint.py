"""What distinguishes the weights of two networks of one structure, on any mesh."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from sam_audio_jax import parallel


def fingerprint(networks: nnx.Module, *, rounded: bool = False) -> str:
    """Distinguishes weights: the extremes of each parameter, the same on every mesh.

    With `rounded` they are rounded to float16, so that a copy in a float16 file is the same.
    """
    leaves = jax.tree.leaves(nnx.as_pure(nnx.state(networks, nnx.Param)))
    if parallel.platform() == "cpu" and all(leaf.is_fully_addressable for leaf in leaves):
        # Without a program, which would take longer to compile than to run.
        pairs = ((np.min(leaf), np.max(leaf)) for leaf in map(np.asarray, leaves))
        extremes = [np.asarray(pair, np.float32) for pair in pairs]
    else:
        extremes = jax.device_get(_extremes(leaves))
    joined = np.concatenate(extremes)
    if rounded:
        with np.errstate(over="ignore"):
            joined = joined.astype(np.float16)
    return hashlib.sha256(joined.tobytes()).hexdigest()[:16]


@jax.jit
def _extremes(leaves: list[Array]) -> list[Array]:
    return [jnp.stack([x.min(), x.max()]).astype(jnp.float32) for x in leaves]
