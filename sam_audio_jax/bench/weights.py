"""Random weights of full-size networks, drawn one array at a time.

A bench has no checkpoint. Memory beyond the weights is that of one array, as when a checkpoint is
loaded, and no weight is zero: an initialised separator would have velocity 0.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32

M = TypeVar("M", bound=nnx.Module)


def draw(make: Callable[[], nnx.Module]) -> Iterator[tuple[Any, Float32[np.ndarray, "..."]]]:
    """Yields path and numbers of each parameter that `make` would initialise.

    Matrices are scaled by their fan-in, so that activations stay of order one. Stored variances are
    positive.
    """
    rng = np.random.default_rng(0)
    abstract = nnx.as_pure(nnx.state(nnx.eval_shape(make)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        array = rng.standard_normal(leaf.shape, np.float32)
        array *= leaf.shape[-2] ** -0.5 if len(leaf.shape) > 1 else 0.5
        named = str(getattr(path[-1], "key", path[-1]))
        yield path, 0.5 + np.abs(array) if named == "variance" else array


def random_network(make: Callable[[], M]) -> M:
    """Builds the network that `make` would initialise, with those weights."""
    graph, abstract = nnx.split(nnx.eval_shape(make))
    tree = jax.tree.structure(nnx.as_pure(abstract))
    return nnx.merge(graph, jax.tree.unflatten(tree, [jnp.asarray(x) for _, x in draw(make)]))
