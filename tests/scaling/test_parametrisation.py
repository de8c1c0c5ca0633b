"""muP: factors by parameter, the coordinate check, and that the standard one is as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sam_audio_jax.scaling import coordinates
from sam_audio_jax.scaling.sizes import resized
from sam_audio_jax.train.config import OptimConfig, ParametrisationConfig, TrainConfig
from sam_audio_jax.train.objective import make_model
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.parametrisation import factors, scale_rates
from tests import tiny

MUP = ParametrisationConfig(kind="mup", base_width=32, base_head_dim=8, base_depth=4)
DEEP = dataclasses.replace(MUP, kind="mup_depth")
OPTIM = OptimConfig(peak_lr=1e-2, warmup_steps=0)


def training(**fields) -> TrainConfig:
    return TrainConfig(
        codec=tiny.CODEC,
        text=tiny.TEXT,
        separator=tiny.SEPARATOR,
        codec_checkpoint="random",
        text_checkpoint="random",
        optim=OPTIM,
        **fields,
    )


WIDE = resized(training(), 128).separator.dit  # four times the base, with heads of 32


@pytest.mark.parametrize(
    ("path", "initial", "rate"),
    [
        ("separator.dit.blocks.attention.value.kernel", 1, 1 / 4),
        ("separator.dit.blocks.mlp.down.kernel", 1, 1 / 4),
        ("separator.dit.patcher.first.kernel", 1, 1 / 4),
        ("separator.dit.context.up.kernel", 1, 1 / 4),
        ("separator.dit.out.kernel", 1, 1 / 4),
        ("separator.dit.time.project.down.kernel", 1, 1 / 4),
        ("separator.dit.time.project.gate.kernel", 1, 1),
        ("separator.project.kernel", 1, 1),
        ("separator.project_text.kernel", 1, 1),
        ("separator.dit.blocks.attention_norm.scale", 1, 1),
        ("separator.dit.blocks.attention.query_norm.scale", 1 / 2, 1 / 2),
        ("separator.dit.blocks.attention.key_norm.scale", 1, 1),
        ("separator.dit.modulation", 2, 1),
        ("alignment.first.kernel", 1 / 2, 1 / 4),
        ("alignment.second.kernel", 1, 1),
        ("text_encoder.blocks.attention.query.kernel", 1, 1),
    ],
)
def test_factors_at_four_times_the_base_width(path, initial, rate):
    assert factors(path, MUP, WIDE) == (initial, rate)


def test_without_norms_of_the_query_its_kernel_has_the_scale_of_attention():
    plain = dataclasses.replace(WIDE, qk_norm=False)
    path = "separator.dit.blocks.cross_attention.query.kernel"
    assert factors(path, MUP, plain) == (1 / 2, 1 / 8)
    assert factors(path, MUP, WIDE) == (1, 1 / 4)


def test_depth_divides_what_a_block_adds():
    """The rows of the modulation that are gates, and the kernel after the ungated attention."""
    deep = dataclasses.replace(WIDE, depth=8)
    initial, rate = factors("separator.dit.blocks.modulation", DEEP, deep)
    assert np.ravel(initial).tolist() == [2, 2, 1, 2, 2, 1]
    assert np.ravel(rate).tolist() == [1, 1, 0.5, 1, 1, 0.5]
    _, rate = factors("separator.dit.time.to_blocks.kernel", DEEP, deep)
    assert rate[:: deep.width].tolist() == [0.25, 0.25, 0.125, 0.25, 0.25, 0.125]
    assert factors("separator.dit.blocks.cross_attention.out.kernel", DEEP, deep) == (1, 1 / 8)
    assert factors("separator.dit.blocks.cross_attention.out.kernel", MUP, deep) == (1, 1 / 4)


def test_every_parameter_that_grows_with_the_width_has_its_factors():
    """By shapes alone: what reads from the width, and nothing else, learns more slowly."""
    shapes = []
    for width in (32, 64):
        config = resized(training(parametrisation=MUP), width)
        state = nnx.state(nnx.eval_shape(lambda config=config: make_model(config)), nnx.Param)
        leaves = jax.tree_util.tree_leaves_with_path(nnx.as_pure(state))
        shapes.append(
            {jax.tree_util.keystr(p, simple=True, separator="."): leaf.shape for p, leaf in leaves}
        )
    dit = resized(training(), 64).separator.dit
    for path, wide in shapes[1].items():
        fan_in_grows = path.endswith("kernel") and wide[-2] > shapes[0][path][-2]
        _, rate = factors(path, MUP, dit)
        halves = bool(np.all(np.asarray(rate) == 0.5))
        assert halves == fan_in_grows or "query_norm" in path, path


def test_rates_scale_the_steps_of_adam_but_not_the_decay():
    params = {
        "separator": {"dit": {"out": {"kernel": jnp.ones((4, 2))}, "norm": {"scale": jnp.ones(4)}}}
    }
    grads = jax.tree.map(jnp.ones_like, params)
    schedule = constant_schedule(OPTIM)
    steps = {}
    for kind in (ParametrisationConfig(), MUP):
        tx = make_optimizer(OPTIM, schedule, decay_mask, rates=scale_rates(kind, WIDE))
        updates, _ = tx.update(grads, tx.init(params), params)
        steps[kind.kind] = updates["separator"]["dit"]
    decay = OPTIM.peak_lr * OPTIM.weight_decay
    standard, mup = (steps[k]["out"]["kernel"] + decay for k in ("standard", "mup"))
    np.testing.assert_allclose(mup, standard / 4, rtol=1e-4)
    np.testing.assert_allclose(steps["mup"]["norm"]["scale"], steps["standard"]["norm"]["scale"])


def test_the_standard_parametrisation_is_plain_adamw():
    assert scale_rates(ParametrisationConfig(), WIDE) is None
    params = {"kernel": jnp.linspace(-1, 1, 5)}
    tx = make_optimizer(OPTIM, constant_schedule(OPTIM), decay_mask)
    plain = optax.chain(
        optax.clip_by_global_norm(OPTIM.clip_norm),
        optax.adamw(OPTIM.peak_lr, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1),
    )
    one, _ = tx.update(params, tx.init(params), params)
    other, _ = plain.update(params, plain.init(params), params)
    np.testing.assert_array_equal(one["kernel"], other["kernel"])


@pytest.mark.long
def test_coordinates_move_alike_at_every_width_under_mup_only():
    widths = (16, 32, 64, 128)
    config = dataclasses.replace(training(), optim=dataclasses.replace(OPTIM, peak_lr=1e-3))
    moved = coordinates.movements(config, widths, steps=3)
    np.testing.assert_allclose(moved["standard"][0], moved["mup"][0], rtol=1e-6)  # the base width
    assert abs(coordinates.growth(widths, moved["mup"])) < 0.2, moved
    assert coordinates.growth(widths, moved["standard"]) > 0.4, moved
