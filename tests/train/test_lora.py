"""Low-rank adapters: they start as their base, learn alone, and are merged, mixed and refused."""

import dataclasses
import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.cli import convert as convert_command
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.adapter import (
    Adapter,
    digest,
    make_adapter,
    merge_adapters,
    open_adapter,
    save_adapter,
)
from sam_audio_jax.convert.folder import save_folder
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.lora import (
    FACTORS,
    factors_by_layer,
    joined,
    merge_factors,
    split_factors,
)
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.train.config import LoraConfig
from sam_audio_jax.train.objective import (
    BASE,
    abstract_training,
    make_model,
    make_separator_training,
    whole_params,
)
from tests.tiny import filled
from tests.train.batches import FRAMES, random_batch

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
LORA = dataclasses.replace(
    TINY, train_text=False, init_from="base", lora=LoraConfig(rank=2, alpha=4.0)
)


def make_start(seed=0):
    return filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)), seed)


def make_codec():
    return filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))


def batch():
    return random_batch(FRAMES, TINY.codec.codebook_dim)


@functools.partial(jax.jit, static_argnums=0)
def velocity(graph, params):
    """What a network answers to the batch."""
    prompted = nnx.merge(graph, params)
    one = {name: jnp.asarray(value) for name, value in batch().items()}
    conditions = Conditions.build(
        mixture=one["mixture"],
        text=prompted.text_encoder(one["text_ids"], one["text_mask"]),
        text_mask=one["text_mask"],
        anchors=one["anchors"],
        video=None,
        video_width=TINY.separator.video_width,
        valid=one["valid"],
    )
    noisy = jnp.concatenate([one["target"], one["residual"]], -1)
    time = jnp.full(8, 0.3)
    return prompted.separator.velocity(noisy, time, prompted.separator.prepare(conditions))


def parts(module):
    graph, state = nnx.split(module)
    return graph, split_factors(nnx.as_pure(state))[1]


@pytest.fixture(scope="module")
def trained():
    """A start, the state at step 0 and after three steps, and the frozen weights."""
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    start = make_start()
    state, step, frozen = make_separator_training(LORA, make_codec(), mesh, start)
    after, metrics, step = state, {}, jax.jit(step)
    for _ in range(3):
        after, metrics = step(after, batch(), frozen)
    assert np.isfinite(metrics["loss"])
    return start, state, after, frozen


def test_adapters_alone_are_trained_and_begin_as_their_base(trained):
    start, state, after, frozen = trained
    graph = nnx.graphdef(nnx.eval_shape(lambda: make_model(LORA)))
    whole = velocity(graph, whole_params(state.params, frozen))
    np.testing.assert_array_equal(whole, velocity(*parts(start)))
    assert not np.allclose(whole, velocity(graph, whole_params(after.params, frozen)), atol=1e-5)
    layers = factors_by_layer(after.params)
    assert len(layers) == 11  # two attentions of four, a feed-forward of three
    assert all(a.shape[:1] == b.shape[:1] == (2,) for a, b in layers.values())  # stacked
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, after.params)
    assert all(jax.tree.leaves(moved))
    for tree in (state.params, state.ema, after.params):
        assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(tree)} == {*FACTORS}
    jax.tree.map(np.testing.assert_array_equal, frozen[BASE], parts(start)[1])
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert moments == pytest.approx(2 * sum(x.size for x in jax.tree.leaves(state.params)), abs=3)


def test_factors_and_the_rest_are_one_tree_in_two(trained):
    _, state, _, frozen = trained
    whole = joined(state.params, frozen[BASE])
    factors, rest = split_factors(whole)
    assert jax.tree.structure(factors) == jax.tree.structure(state.params)
    assert jax.tree.structure(rest) == jax.tree.structure(frozen[BASE])


def test_a_merged_model_is_the_model_with_its_adapter(trained, tmp_path, capsys):
    start, _, after, frozen = trained
    base, name, merged = (str(tmp_path / part) for part in ("base", "adapter", "merged"))
    fields = {"base": base, "weights": digest(start), "rank": 2, "alpha": 4.0, "step": 3}
    save_adapter(name, make_adapter("run", after.params, **fields))
    adapter = open_adapter(name)
    assert dataclasses.replace(adapter, state={}) == Adapter(name=name, state={}, **fields)

    graph = nnx.graphdef(nnx.eval_shape(lambda: make_model(LORA)))
    wanted = velocity(graph, whole_params(after.params, frozen))
    halves = make_start()
    merge_adapters(halves, [(adapter, 0.25), (adapter, 0.75)], base)
    np.testing.assert_allclose(velocity(*parts(halves)), wanted, atol=1e-5)
    none = make_start()
    older = dataclasses.replace(adapter, weights=adapter.weights[:16])  # of an earlier version
    merge_adapters(none, [(older, 0.0)], base)
    jax.tree.map(np.testing.assert_array_equal, parts(none)[1], parts(start)[1])

    save_folder(base, make_codec(), start, "byt5")
    assert convert_command.main(["--from", base, "--to", merged, "--adapter", name]) == 0
    again = load_networks(merged)[1]
    for one, other in zip(*(jax.tree.leaves(parts(x)[1]) for x in (again, halves)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)

    capsys.readouterr()
    arguments = ["--from", merged, "--to", str(tmp_path / "twice"), "--adapter", name]
    assert convert_command.main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: adapter {name} was trained beside {base} (weights ")
    assert line.count("\n") == 1
    assert not (tmp_path / "twice").exists()


def test_a_copy_in_float16_is_the_same_base_and_another_model_is_not():
    graph, weights = parts(make_start())
    rounded = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), weights)
    assert digest(nnx.merge(graph, rounded)) == digest(make_start())
    assert digest(make_start(1)) != digest(make_start())


def test_adapters_of_other_layers_or_sizes_are_refused(trained):
    factors = factors_by_layer(trained[2].params)
    a, b = map(np.asarray, factors["separator.dit.blocks.mlp.up"])
    for name, pair, message in (
        ("separator.dit.blocks.gone", (a, b), "a layer separator.dit.blocks.gone, which the model"),
        ("separator.dit.blocks.mlp.up", (a, b[..., :4]), r"has \[2, 8, 4\], the model \[2, 8, 8\]"),
    ):
        with pytest.raises(UserError, match=message):
            merge_factors(make_start(), {name: pair}, 1.0)


@pytest.mark.parametrize(("value", "scale"), [(np.nan, 1.0), (1e30, 1e30)])
def test_an_adapter_that_leaves_no_numbers_is_refused(value, scale):
    a, b = np.full((2, 8, 1), value, np.float32), np.ones((2, 1, 8), np.float32)
    with pytest.raises(UserError, match="makes values that are NaN or infinite: its file"):
        merge_factors(make_start(), {"separator.dit.blocks.mlp.up": (a, b)}, scale)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone", "no adapter 'gone': name its folder"),
        ("here:much", "the scale after the colon must be a number"),
        ("here:nan", "the scale after the colon must be a number"),
        ("here", "holds no adapter: neither adapter.json nor"),
    ],
)
def test_what_is_no_adapter_is_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=message):
        load_networks("tiny", adapters=[text])


def test_configs_of_adapters_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match=r"lora\.rank=2 adapts a trained model: name one by init_f"):
        dataclasses.replace(LORA, init_from="")
    with pytest.raises(UserError, match="trains adapters alone: train_text=True must be False"):
        dataclasses.replace(LORA, train_text=True)
    with pytest.raises(UserError, match=r"lora\.layers='\(' is no regular expression"):
        LoraConfig(layers="(")
    lora = dataclasses.replace(LORA.lora, layers=r".*\.mlp\.up")
    with pytest.raises(UserError, match=r"matches text_encoder\.blocks\.mlp\.up: the text encoder"):
        nnx.eval_shape(lambda: make_model(dataclasses.replace(LORA, lora=lora)))
    lora = dataclasses.replace(LORA.lora, layers="attention")
    with pytest.raises(UserError, match=r"lora\.layers='attention' matches no linear layer, as"):
        nnx.eval_shape(lambda: make_model(dataclasses.replace(LORA, lora=lora)))


@pytest.mark.parametrize("config", [LORA, TINY], ids=["adapters", "all of it"])
def test_a_start_that_reckons_otherwise_is_refused(config):
    """Its weights have the shapes of the config, and would mean something else."""
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    dit = dataclasses.replace(config.separator.dit, norm_eps=0.1, max_positions=9_000)
    changes = {
        "separator": dataclasses.replace(config.separator, dit=dit),
        "text": dataclasses.replace(config.text, max_distance=100),
    }
    other = dataclasses.replace(config, init_from="base", **changes)
    wrong = "norm_eps 1e-05 instead of 0.1; max_positions 10000 instead of 9000; max_distance 128"
    with pytest.raises(UserError, match=f"init_from=base has {wrong} instead of 100"):
        make_separator_training(other, make_codec(), mesh, make_start())


def test_a_plan_counts_the_moments_of_adapters_alone():
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    plan = abstract_training(LORA, nnx.eval_shape(make_codec), mesh)
    shapes = jax.tree.map(lambda leaf: leaf.shape, plan.frozen[BASE])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, parts(nnx.eval_shape(make_start))[1])
    whole = sum(leaf.size for leaf in jax.tree.leaves(plan.frozen[BASE]))
    assert sum(leaf.size for leaf in jax.tree.leaves(plan.state.opt_state)) < whole
