"""What a run's weights are where its start has fewer blocks, or other sizes."""

import dataclasses
import pathlib
import runpy

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.block_expansion import OUTPUTS, expand_blocks
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.config import LoraConfig
from sam_audio_jax.train.objective import make_model, make_separator_training
from tests.tiny import filled
from tests.train.batches import FRAMES, random_batch

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]


def deep(depth, **fields):
    dit = dataclasses.replace(TINY.separator.dit, depth=depth, dropout=0.0, **fields)
    separator = dataclasses.replace(TINY.separator, dit=dit)
    return dataclasses.replace(TINY, separator=separator, init_from="start")


def network(depth):
    return filled(lambda: PromptedSeparator(TINY.text, deep(depth).separator, rngs=Rngs(0)))


def training(config, start):
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    return make_separator_training(config, codec, mesh, start)


def test_copies_stand_evenly_among_the_blocks_and_add_nothing():
    stack = nnx.as_pure(nnx.state(network(4).separator.dit.blocks))
    wide = expand_blocks(stack, 6)
    source, is_copy = [0, 1, 1, 2, 3, 3], np.array([0, 0, 1, 0, 0, 1], bool)
    outputs = {(branch, last, "kernel") for branch, last in OUTPUTS}
    for path, leaf in jax.tree_util.tree_leaves_with_path(wide):
        keys = tuple(key.key for key in path)
        old = stack
        for key in keys:
            old = old[key]
        expected = np.asarray(old)[source]
        if keys in outputs:
            outputs.remove(keys)
            assert expected.any(axis=(1, 2)).all()
            expected = np.where(is_copy[:, None, None], 0, expected)
        np.testing.assert_array_equal(leaf, expected, err_msg=str(keys))
    assert not outputs


def test_a_run_with_more_blocks_begins_as_its_start_and_all_of_it_learns(capsys):
    start = network(2)
    wide, step, weights = training(deep(5), start)
    assert capsys.readouterr().err == (
        "note: init_from=start has 2 blocks; 3 copies of them, which add nothing at first, make "
        "separator.dit.depth=5\n"
    )
    same, own_step, _ = training(deep(2), start)
    batch = random_batch(FRAMES, TINY.codec.codebook_dim)
    (wide_state, wide_metrics), (_, metrics) = (
        jax.jit(run)(state, batch, weights) for run, state in ((step, wide), (own_step, same))
    )
    np.testing.assert_allclose(wide_metrics["loss"], metrics["loss"], rtol=1e-6)
    for branch, last in OUTPUTS:
        kernel = wide_state.params["separator"]["dit"]["blocks"][branch][last]["kernel"]
        assert np.any(kernel, axis=(1, 2)).all(), branch
    graph = nnx.graphdef(nnx.eval_shape(lambda: make_model(deep(5))))
    assert nnx.merge(graph, wide.params).separator.config.dit.depth == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (deep(1), r"init_from=start has 2 blocks, more than separator\.dit\.depth=1"),
        (
            deep(3, mlp=24),
            r"than the config: separator\.dit: depth 2 .*mlp \d+ instead of 24",
        ),
        (
            dataclasses.replace(deep(3), train_text=False, lora=LoraConfig(rank=1)),
            r"than the config: separator\.dit: depth 2 instead of 3$",
        ),
    ],
)
def test_a_start_of_other_sizes_is_refused(config, message, capsys):
    with pytest.raises(UserError, match=message):
        training(config, network(2))
    assert not capsys.readouterr().err  # no note of blocks that no run will have
