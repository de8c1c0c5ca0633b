"""Stacks of blocks: the scan, parts of it, and the list of blocks that a CPU runs instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.nn import call
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.nn.stack import scan_blocks, stack_bytes, stacked, unstacked

DEPTH, WIDTH = 3, 8


class Block(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.layer = linear(WIDTH, WIDTH, ("embed", "mlp"), dtype="float32", bias=True, rngs=rngs)


class Network(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = linear(WIDTH, WIDTH, ("embed", "mlp"), dtype="float32", rngs=rngs)
        self.blocks = stacked(lambda rngs: Block(rngs=rngs), DEPTH, rngs)

    def __call__(self, x: jax.Array, *, layers: slice = slice(None)) -> jax.Array:
        return scan_blocks(
            self.blocks,
            self.first(x),
            lambda block, x, scale: jnp.tanh(block.layer(x)) * scale + x,
            axes=("batch", "width"),
            dtype="float32",
            per_layer=jnp.arange(1.0, DEPTH + 1),
            layers=layers,
        )


@pytest.fixture(scope="module")
def network() -> Network:
    return parallel.init_sharded(lambda: Network(rngs=Rngs(0)))


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (2, WIDTH))


def plain(network: Network, x: jax.Array, numbers: range) -> np.ndarray:
    """The same network as a loop in NumPy."""
    wide = np.asarray(x @ network.first.kernel[...])
    kernel, bias = (
        np.asarray(p[...]) for p in (network.blocks.layer.kernel, network.blocks.layer.bias)
    )
    for number in numbers:
        wide = np.tanh(wide @ kernel[number] + bias[number]) * (number + 1) + wide
    return wide


@pytest.mark.parametrize("layers", [slice(None), slice(2), slice(1, None)])
def test_the_scan_is_the_loop_over_its_layers(network, x, layers):
    numbers = range(DEPTH)[layers]
    for one in (network, unstacked(network)):
        np.testing.assert_allclose(
            one(x, layers=layers), plain(network, x, numbers), rtol=1e-5, atol=1e-6
        )


def test_a_list_of_blocks_has_the_weights_of_the_stack(network):
    apart = unstacked(network)
    assert stack_bytes(network) == DEPTH * (WIDTH * WIDTH + WIDTH) * 4
    assert stack_bytes(apart) == 0
    assert apart.first.kernel[...] is network.first.kernel[...]
    for number, block in enumerate(apart.blocks):
        np.testing.assert_array_equal(
            block.layer.kernel[...], network.blocks.layer.kernel[...][number]
        )
    assert jax.tree.leaves(nnx.state(network.blocks))[0].shape[0] == DEPTH  # it is still a stack


def test_stacks_in_a_list_are_found(network, x):
    class Several(nnx.Module):
        def __init__(self, one: Network):
            self.stacks = nnx.List([one.blocks, one.blocks])

    several = Several(network)
    assert stack_bytes(several) == 2 * stack_bytes(network)
    apart = unstacked(several)
    assert stack_bytes(apart) == 0
    assert [len(blocks) for blocks in apart.stacks] == [DEPTH, DEPTH]
    assert isinstance(several.stacks[0], Block)  # it is still a stack


def test_the_layers_of_a_stack_are_named_on_their_first_axis(network):
    kernel = network.blocks.layer.kernel
    assert kernel.get_metadata()["out_sharding"] == ("layers", "embed", "mlp")
    assert len({float(layer[0, 0]) for layer in kernel[...]}) == DEPTH  # each drawn by itself


def test_initialisation_takes_little_more_than_the_parameters():
    class Deep(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs):
            wide = lambda rngs: linear(256, 256, ("embed", "mlp"), dtype="float32", rngs=rngs)  # noqa: E731
            self.blocks = stacked(wide, 32, rngs)

    make = jax.jit(lambda: nnx.as_pure(nnx.state(Deep(rngs=Rngs(0)))))
    memory = make.lower().compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.3 * memory.output_size_in_bytes


def test_a_large_network_is_unrolled_and_gives_the_same(network, x, monkeypatch):
    want = Compiled(network)(Network.__call__, x)
    monkeypatch.setattr(call, "LARGE_STACK", 1)
    got = Compiled(network)(Network.__call__, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_program_is_compiled_once_for_all_networks_of_one_structure(network, x):
    other = parallel.init_sharded(lambda: Network(rngs=Rngs(1)))
    results = [Compiled(one)(Network.__call__, x) for one in (network, other)]
    assert not np.array_equal(*results)
    before = call.jitted(Network.__call__)._cache_size()
    Compiled(other)(Network.__call__, x)
    assert call.jitted(Network.__call__)._cache_size() == before
