"""More blocks for a trained transformer that goes on computing the same, to be trained further.

Copies of its blocks stand among them, spread evenly, with the last matrix of each branch zero: a
copy adds nothing to the residual stream until that is learned. Source: "block expansion" of LLaMA
Pro, arXiv 2401.02415, section 3.2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

# The last matrix of each of the three branches of a block.
OUTPUTS = ("attention", "out"), ("cross_attention", "out"), ("mlp", "down")


def expand_blocks(stack: PyTree, depth: int) -> PyTree:
    """The parameters of `depth` blocks, from those of at most as many.

    Every leaf of a stack has the axis `layers` first; shardings are kept, as that axis is whole on
    every device.
    """
    blocks = jax.tree.leaves(stack)[0].shape[0]
    # The middle of each new block, in the depth of the old ones: 0 1 1 2 3 3 for 4 that become 6.
    source = (2 * np.arange(depth) + 1) * blocks // (2 * depth)
    is_copy = np.diff(source, prepend=-1) == 0

    def expand(stack: PyTree) -> PyTree:
        wide = jax.tree.map(lambda leaf: leaf[source], stack)
        for branch, last in OUTPUTS:
            wide[branch][last] = jax.tree.map(
                lambda leaf: jnp.where(is_copy.reshape(-1, *[1] * (leaf.ndim - 1)), 0, leaf),
                wide[branch][last],
            )
        return wide

    shardings = jax.tree.map(lambda leaf: leaf.sharding, stack)
    return jax.jit(expand, out_shardings=shardings)(stack)
