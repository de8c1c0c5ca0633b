"""Equal blocks with stacked parameters, run by one scan: compile time does not grow with depth.

A stack is one block whose every parameter has a first axis more, `layers`. Checkpoints, shardings
and optimizers see a few wide arrays instead of many narrow ones.
"""

import operator
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.nn.kernels import SAVED

Block = TypeVar("Block", bound=nnx.Module)

# What the backward pass computes again instead of keeping it: nothing, whole blocks, all but the
# results of attention, or all but those of matrix products with weights
Remat = Literal["none", "full", "attention", "dots"]

_POLICIES = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(SAVED),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def stacked(make: Callable[[nnx.Rngs], Block], depth: int, rngs: nnx.Rngs) -> Block:
    """Initialises `depth` blocks, each from random numbers of its own, as one stack."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
    def initialise(rngs: nnx.Rngs) -> Block:
        return make(rngs)

    return initialise(rngs)


def scan_blocks(
    stack: Block,
    x: jax.Array,
    call: Callable[[Block, jax.Array, Any], jax.Array],
    *,
    axes: tuple[parallel.LogicalAxis, ...],
    dtype: str,
    per_layer: Any = None,
    layers: slice = slice(None),
    remat: Remat = "none",
    unroll: int = 1,
) -> jax.Array:
    """Runs `x` through the blocks of a stack, one after the other.

    Args:
      stack: from `stacked`.
      x: the residual stream.
      call: `(block, x, inputs) -> x` of one layer.
      axes: the logical axes of `x`, by which it is sharded between blocks; left to the partitioner
        it may be sharded as the weights are.
      dtype: of the computation, to which kernels are cast before they are gathered.
      per_layer: inputs of the layers, a tree of arrays whose first axis is the layer.
      layers: which layers run; any but all of them cost a copy of their weights.
      remat: what the backward pass computes again.
      unroll: blocks in one iteration of the scan.
    """
    graph, weights = nnx.split(stack)
    gather = parallel.gather_layer(weights, dtype)

    def body(x: jax.Array, layer: tuple[Any, Any]) -> tuple[jax.Array, None]:
        weights, inputs = layer
        x = parallel.constrain(x, *axes)
        return call(nnx.merge(graph, gather(weights)), x, inputs), None

    if remat != "none":
        body = jax.checkpoint(body, policy=_POLICIES[remat], prevent_cse=False)
    inputs = (nnx.as_pure(weights), per_layer)
    if layers != slice(None):
        inputs = jax.tree.map(operator.itemgetter(layers), inputs)
    return jax.lax.scan(body, x, inputs, unroll=unroll)[0]
