"""Equal blocks with stacked parameters, run by one scan: compile time does not grow with depth.

A stack is one block whose every parameter has a first axis more, `layers`. Checkpoints, shardings
and optimizers see a few wide arrays instead of many narrow ones. On a CPU a scan copies the weights
of each layer out of the stack; `unstacked` gives each layer arrays of its own, and no scan.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.nn.kernels import SAVED

Block = TypeVar("Block", bound=nnx.Module)
M = TypeVar("M", bound=nnx.Module)

# What the backward pass computes again instead of keeping it: nothing, whole blocks, all but the
# results of attention, or all but those of matrix products with weights
Remat = Literal["none", "full", "attention", "dots"]

_POLICIES = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(SAVED),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def stacked(make: Callable[[nnx.Rngs], Block], depth: int, rngs: nnx.Rngs) -> Block:
    """Initialises `depth` blocks, each from random numbers of its own, as one stack.

    One block after the other, so that memory beyond the parameters is that of one block.
    """

    @nnx.split_rngs(splits=depth)
    @nnx.scan(
        length=depth, in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"}
    )
    def initialise(rngs: nnx.Rngs) -> Block:
        return make(rngs)

    return initialise(rngs)


def scan_blocks(
    stack: Block | nnx.List[Block],
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
      stack: from `stacked`, or the list of blocks that `unstacked` has put in its place.
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

    def without_output(block: Block, x: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        return call(block, x, inputs), None

    return scan_outputs(
        stack,
        x,
        without_output,
        axes=axes,
        dtype=dtype,
        per_layer=per_layer,
        layers=layers,
        remat=remat,
        unroll=unroll,
    )[0]


def scan_outputs(
    stack: Block | nnx.List[Block],
    x: jax.Array,
    call: Callable[[Block, jax.Array, Any], tuple[jax.Array, Any]],
    *,
    axes: tuple[parallel.LogicalAxis, ...],
    dtype: str,
    per_layer: Any = None,
    layers: slice = slice(None),
    remat: Remat = "none",
    unroll: int = 1,
) -> tuple[jax.Array, Any]:
    """As `scan_blocks`, for blocks that also give an output.

    `call` is `(block, x, inputs) -> (x, output)`; the outputs of all layers, trees of arrays, are
    returned beside `x`, with the layer as their first axis.
    """
    if isinstance(stack, nnx.List):
        outputs = []
        for number in range(len(stack))[layers]:
            inputs = jax.tree.map(operator.itemgetter(number), per_layer)
            x, output = call(stack[number], x, inputs)
            outputs.append(output)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *outputs)

    graph, weights = nnx.split(stack)
    gather = parallel.gather_layer(weights, dtype)

    def body(x: jax.Array, layer: tuple[Any, Any]) -> tuple[jax.Array, Any]:
        weights, inputs = layer
        x = parallel.constrain(x, *axes)
        return call(nnx.merge(graph, gather(jax.tree.map(_from_bits, weights))), x, inputs)

    if remat != "none":
        body = jax.checkpoint(body, policy=_POLICIES[remat], prevent_cse=False)
    inputs = (nnx.as_pure(weights), per_layer)
    if layers != slice(None):
        inputs = jax.tree.map(operator.itemgetter(layers), inputs)
    return jax.lax.scan(body, x, inputs, unroll=unroll)


def stack_bytes(network: nnx.Module) -> int:
    """Bytes of all stacks in a network whose parameters are float32."""
    stacks = (jax.tree.leaves(nnx.state(value)) for _, _, value in _stacks(network))
    wide = (leaves for leaves in stacks if all(leaf.dtype == jnp.float32 for leaf in leaves))
    return sum(leaf.size * leaf.dtype.itemsize for leaves in wide for leaf in leaves)


def with_bits(network: M) -> M:
    """The network with the bits of bfloat16 stacks as integers, in the same memory.

    For inference on a CPU: XLA there widens a whole stack of bfloat16 to float32 ahead of the loop
    over its layers, but of integers it takes one layer at a time. Not for checkpoints.
    """
    network = nnx.merge(*nnx.split(network))  # other modules around the same arrays
    for _, _, stack in list(_stacks(network)):
        for path, variable in nnx.to_flat_state(nnx.state(stack)):
            if variable.dtype == jnp.bfloat16:
                *above, name = map(str, path)
                owner = functools.reduce(getattr, above, stack)
                setattr(owner, name, variable.replace(_bits(variable.get_value())))
    return network


def _bits(value: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    if isinstance(value, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(value.shape, jnp.uint16)
    return jax.device_put(np.asarray(value).view(np.uint16), may_alias=True)


def _from_bits(value: jax.Array) -> jax.Array:
    is_bits = value.dtype == jnp.uint16
    return jax.lax.bitcast_convert_type(value, jnp.bfloat16) if is_bits else value


def unstacked(network: M) -> M:
    """The network with a list of blocks in place of each stack, for inference on a CPU.

    Both have their weights in the same memory, or are both abstract. Its parameters have other
    paths: not for checkpoints.
    """
    network = nnx.merge(*nnx.split(network))  # other modules around the same arrays
    for owner, name, stack in list(_stacks(network)):
        graph, state = nnx.split(stack)
        weights = nnx.as_pure(state)
        depth = jax.tree.leaves(weights)[0].shape[0]
        if isinstance(jax.tree.leaves(weights)[0], jax.ShapeDtypeStruct):
            layer = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), weights)
            blocks = [nnx.merge(graph, layer) for _ in range(depth)]
        else:
            weights = jax.tree.map(np.asarray, weights)
            layers = (jax.tree.map(operator.itemgetter(i), weights) for i in range(depth))
            blocks = [nnx.merge(graph, jax.device_put(layer, may_alias=True)) for layer in layers]
        setattr(owner, name, nnx.List(blocks))
    return network


def _stacks(network: nnx.Module) -> Iterator[tuple[nnx.Module, str, nnx.Module]]:
    """The stacks in a network, each with the module and the attribute that hold it."""
    for name, value in vars(network).items():
        if not isinstance(value, nnx.Module):
            continue
        if not isinstance(value, nnx.List) and _is_stack(value):
            yield network, name, value
        else:
            yield from _stacks(value)


def _is_stack(module: nnx.Module) -> bool:
    """Whether every variable has the first axis `layers`, which blocks of `unstacked` lack."""
    flat = nnx.to_flat_state(nnx.state(module))
    axes = [(tuple(v.get_metadata().get("out_sharding") or ()), v.shape) for _, v in flat]
    return bool(axes) and all(
        names[:1] == ("layers",) and len(names) == len(shape) for names, shape in axes
    )
