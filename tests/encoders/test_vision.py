"""Properties of the image tower that hold for any weights."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from sam_audio_jax import parallel
from sam_audio_jax.encoders.clips import pixels
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs

SIZES = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "mlp": 24}
CONFIG = VisionConfig(**SIZES, output=6, pool_heads=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_released_size_can_be_traced(dtype):
    def encode(frames):
        return VisionEncoder(VisionConfig(dtype=dtype), rngs=Rngs(0)).encode(pixels(frames))

    frames = jax.ShapeDtypeStruct((2, 336, 336, 3), jnp.uint8)
    vectors = jax.eval_shape(encode, frames)
    assert (vectors.shape, vectors.dtype) == ((2, 1024), jnp.float32)


def test_large_matrices_are_sharded_over_the_mesh():
    devices = AbstractMesh((1, 2, 2, 1), parallel.MESH_AXES)
    abstract = nnx.state(nnx.eval_shape(lambda: VisionEncoder(CONFIG, rngs=Rngs(0))))
    shardings = parallel.parameter_shardings(abstract, devices)
    block = shardings["blocks"]
    assert block["attention"]["query"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert block["attention"]["out"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert block["mlp"]["up"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert shardings["patch"]["kernel"].spec == PartitionSpec(None, "fsdp")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 9}, r"image_size=9 must be a multiple of vision\.patch_size=4"),
        ({"heads": 3}, r"width=16 must be a multiple of 4 \* vision\.heads=3"),
        ({"pool_heads": 3}, r"width=16 must be a multiple of vision\.pool_heads=3"),
        ({"depth": 0}, r"vision\.depth=0 must be a whole number from 1"),
    ],
)
def test_sizes_that_do_not_fit_are_the_users_error(changes, message):
    with pytest.raises(UserError, match=message):
        VisionConfig(**SIZES | {"pool_heads": 4} | changes)


def test_an_image_smaller_than_a_patch_is_refused():
    def encode(images):
        return VisionEncoder(CONFIG, rngs=Rngs(0)).encode(images)

    with pytest.raises(UserError, match="3 x 8 pixels are smaller than a patch"):
        jax.eval_shape(encode, jax.ShapeDtypeStruct((1, 8, 3, 3), jnp.float32))
