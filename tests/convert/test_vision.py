"""Names, shapes and sizes of the reference's image tower, at tiny and at full size."""

import json
import pathlib

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.convert.vision import (
    RELEASED,
    SAM_AUDIO_PREFIX,
    released_config,
    tower_and_rest,
    tower_config,
    tower_config_to_reference,
    vision_from_reference,
    vision_rows,
    vision_table,
)
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs

INVENTORIES = pathlib.Path(__file__).parents[1] / "golden" / "inventories"
NAME = "PE-Core-L14-336"
SIZES = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "mlp": 24}
TINY = VisionConfig(**SIZES, output=6, pool_heads=4)


def wanted(config):
    return vision_table(config).shapes()


def listed(name):
    values = json.loads((INVENTORIES / f"checkpoint_params_{name}.json").read_text())
    tensors = next(v for v in values.values() if isinstance(v, dict) and len(v) > 100)
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in tensors.items()}


def shapes_of(state):
    return {name: tensor.shape for name, tensor in state.items()}


def random_state(config, prefix=""):
    rng = np.random.default_rng(0)
    return {
        prefix + name: rng.normal(size=shape).astype(np.float32)
        for name, shape in wanted(config).items()
    }


def test_names_and_shapes_of_the_released_tower():
    tower, rest = tower_and_rest(listed("pe_core_l14_336"))
    assert wanted(RELEASED[NAME]) == shapes_of(tower)
    assert not rest


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_a_sam_audio_checkpoint_holds_the_tower_and_a_rest(size):
    state = listed(size)
    tower, rest = tower_and_rest(state, SAM_AUDIO_PREFIX)
    assert wanted(RELEASED[NAME]) == shapes_of(tower)
    under = {name for name in state if name.startswith(SAM_AUDIO_PREFIX)}
    assert {SAM_AUDIO_PREFIX + name for name in tower} | set(rest) == under
    assert f"{SAM_AUDIO_PREFIX}logit_scale" in rest


@pytest.mark.parametrize("changes", [{}, {"class_token": False, "layer_scale": 0.1, "mlp": 21}])
def test_every_row_names_a_parameter_and_none_is_left_out(changes):
    config = VisionConfig(**SIZES | changes)
    model = nnx.eval_shape(lambda: VisionEncoder(config, rngs=Rngs(0)))
    paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert sorted(row.ours for row in vision_rows(config)) == sorted(paths)


@pytest.mark.parametrize("prefix", ["", SAM_AUDIO_PREFIX])
def test_there_and_back_changes_no_bit_and_keeps_the_rest(prefix):
    state = random_state(TINY, prefix)
    others = {f"{prefix}logit_scale": np.array(3.0), f"{prefix}ln_final.bias": np.ones(2)}
    if prefix:
        others["proj.weight"] = np.ones((2, 2))
    tower, rest = tower_and_rest(state | others, prefix)
    assert set(rest) == set(others) - {"proj.weight"}
    assert {prefix + name for name in tower} == set(state)
    back = vision_table(TINY).stored(vision_from_reference(state | others, TINY, prefix))
    assert {prefix + name for name in back} == set(state)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, state[prefix + name], err_msg=name)


def test_one_error_names_every_tensor_that_does_not_fit():
    state = random_state(TINY)
    del state["visual.proj"]
    state["visual.transformer.resblocks.0.attn.in_proj_weight"] = np.zeros((16, 16), np.float32)
    state["visual.surplus"] = np.zeros(1, np.float32)
    state["visuals"] = np.zeros(1, np.float32)
    with pytest.raises(UserError) as error:
        vision_from_reference(state, TINY)
    for message in (
        "missing visual.proj [16, 6]",
        "resblocks.0.attn.in_proj_weight has shape [16, 16], not [48, 16]",
        "unexpected visual.surplus",
        "unexpected visuals",
    ):
        assert message in str(error.value)


@pytest.mark.parametrize("mlp", [24, 21, 7, 43, 1])
@pytest.mark.parametrize("width", [16, 48, 56])
def test_any_size_can_be_written(width, mlp):
    config = VisionConfig(**SIZES | {"width": width, "mlp": mlp})
    assert tower_config(tower_config_to_reference(config)) == config


def test_the_released_tower_by_its_name():
    values = {"name": NAME, "dim": 1024, "interpolation_mode": "BICUBIC", "image_size": 336}
    assert released_config(values) == RELEASED[NAME]
    assert released_config(values, "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "PE-Core-X"}, f"name='PE-Core-X' is unknown; known: {NAME}"),
        ({"dim": 768}, "dim=768 is not supported"),
        ({"interpolation_mode": "BILINEAR"}, "interpolation_mode='BILINEAR' is not supported"),
    ],
)
def test_another_tower_is_the_users_error(changes, message):
    with pytest.raises(UserError, match=message):
        released_config({"name": NAME} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_type": "tok"}, "pool_type='tok'"),
        ({"use_rope2d": False}, "use_rope2d=False is not supported, only True"),
        ({"use_ln_post": False}, "use_ln_post=False"),
        ({"act_layer": "quick_gelu"}, "unknown key act_layer, allowed are image_size"),
    ],
)
def test_what_changes_the_function_of_a_tower_is_refused(changes, message):
    released = {"use_rope2d": True, "use_abs_posemb": True, "use_ln_pre": True, "drop_path": 0.0}
    assert tower_config(released) == VisionConfig()
    with pytest.raises(UserError, match=message):
        tower_config(changes)
