"""One rule gives all sizes; operations are counted once, and agree with XLA's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from sam_audio_jax import config
from sam_audio_jax.data.config import DataConfig, MixConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.plan import chips, figures, flops, operations, programs
from sam_audio_jax.scaling import sizes
from sam_audio_jax.scaling.study import StudyRun
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.train.config import TrainConfig
from tests import tiny


@pytest.mark.parametrize(("name", "width"), [("small", 1536), ("base", 2048), ("large", 2816)])
def test_the_rule_gives_the_sizes_of_the_paper(name, width):
    published = config.from_cli([name], TrainConfig).separator.dit
    assert sizes.of_width(width, published) == published


@pytest.mark.parametrize(("width", "parameters"), [(24, 0.13e6), (512, 23.0e6), (2816, 2.94e9)])
def test_a_width_gives_the_parameters_of_the_chapter(width, parameters):
    dit = sizes.of_width(width, DitConfig())
    assert sizes.parameters(SeparatorConfig(dit=dit)) == pytest.approx(parameters, rel=0.05)
    assert dit.head_dim == min(width // 4, 128)
    assert abs(dit.mlp / width - 8 / 3) < 0.13


@pytest.mark.parametrize("width", [4, 20, 576])
def test_a_width_without_heads_is_refused(width):
    with pytest.raises(UserError, match=f"width {width} must be a multiple of"):
        sizes.of_width(width, DitConfig())


@pytest.fixture(scope="module")
def training() -> TrainConfig:
    return sizes.resized(tiny_training(), 32)


def tiny_training() -> TrainConfig:
    """The smallest training, whose codec encodes in the step."""
    return TrainConfig(
        codec=tiny.CODEC,
        text=tiny.TEXT,
        separator=tiny.SEPARATOR,
        codec_checkpoint="random",
        text_checkpoint="random",
        data=DataConfig(mix=MixConfig(seconds=1.0)),
        batch=4,
    )


def test_plan_and_scaling_count_the_same_operations(training, monkeypatch):
    monkeypatch.setattr(chips.Slice, "devices", lambda self: jax.devices()[:1])
    program = programs.Program(fits=False, needed=0.0)
    planned = figures.train_figures(training, chips.parse("v5e:1x1"), program)
    run = StudyRun("w32-s0", training, (7,))
    assert run.operations(7) == 7 * planned["flops_useful"] > 0
    assert isinstance(run.operations(7), int)


def test_the_codec_counts_where_it_encodes_in_the_step(training):
    cached = dataclasses.replace(
        training, data=dataclasses.replace(training.data, cache="elsewhere")
    )
    codec = operations.of_step(training) - operations.of_step(cached)
    assert codec > 0
    assert codec % training.batch == 0


def test_operations_agree_with_the_count_of_xla():
    """Within 2 %: XLA counts element-wise work, too, which is little of wide layers."""
    dit = DitConfig(depth=2, width=512, heads=4, mlp=1408, unroll=2, dropout=0.0, dtype="float32")
    config = SeparatorConfig(dit=dit, channels=16, text_width=64, video_width=8, anchor_width=8)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0))))
    rows, frames, tokens = 2, 64, 8

    def loss(weights, noisy, time, mixture, text):
        conditions = Conditions.build(
            mixture=mixture,
            text=text,
            text_mask=jnp.ones((rows, tokens), bool),
            anchors=jnp.zeros((rows, frames), jnp.int32),
            video=None,
            video_width=8,
            valid=jnp.ones((rows, frames), bool),
        )
        return nnx.merge(graph, weights)(noisy, time, conditions).sum()

    shapes = [(rows, frames, 32), (rows,), (rows, frames, 16), (rows, tokens, 64)]
    arguments = (nnx.as_pure(abstract), *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    run = jax.grad(loss)
    counted = flops.total(flops.products(run, *arguments))
    assert jax.jit(run).lower(*arguments).cost_analysis()["flops"] == pytest.approx(
        counted, rel=0.02
    )
