"""Properties of the image tower that hold for any weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from sam_audio_jax import parallel
from sam_audio_jax.encoders import vision
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder, encode_clips, pixels, resize
from sam_audio_jax.errors import UserError
from sam_audio_jax.parallel import MeshConfig

SIZES = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "mlp": 24}
CONFIG = VisionConfig(**SIZES, output=6, pool_heads=4)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return jax.jit(lambda: VisionEncoder(CONFIG, rngs=nnx.Rngs(0)))()


def clip(frames, height=8, width=8):
    return RNG.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_slices_and_company_change_no_number(model):
    clips = [clip(5), clip(1), clip(9, 11, 7)]
    together = encode_clips(model, clips, most=4)
    assert [rows.shape for rows in together] == [(len(frames), CONFIG.output) for frames in clips]
    for frames, rows in zip(clips, together, strict=True):
        np.testing.assert_allclose(encode_clips(model, [frames], most=4)[0], rows, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_clip_may_come_in_pieces(model):
    frames = clip(7, 11, 7)
    whole = encode_clips(model, [frames], most=4)[0]
    pieces = (frames[start : start + 3] for start in range(0, len(frames), 3))
    np.testing.assert_array_equal(encode_clips(model, [pieces], most=4)[0], whole)


def test_many_lengths_compile_few_programs(model):
    before = vision._encode._cache_size()
    for frames in range(1, 12):
        encode_clips(model, [clip(frames), clip(2)], most=4, normalize=False)
    assert vision._encode._cache_size() - before <= 3  # 1, 2 and 4 frames


def test_lengths_are_those_of_the_tower_without_normalisation(model):
    frames = clip(2)
    raw = encode_clips(model, [frames], most=2, normalize=False)[0]
    unit = encode_clips(model, [frames], most=2)[0]
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), unit, atol=1e-6)


def test_no_clips_and_empty_clips(model):
    assert encode_clips(model, []) == []
    with pytest.raises(UserError, match="clip 1 has no frames"):
        encode_clips(model, [clip(2), clip(0)], most=2)


def test_bfloat16_is_close(model):
    config = VisionConfig(**SIZES, output=6, pool_heads=4, dtype="bfloat16")
    half = jax.jit(lambda: VisionEncoder(config, rngs=nnx.Rngs(0)))()
    frames = clip(4)
    got, want = (encode_clips(tower, [frames], most=4)[0] for tower in (half, model))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.05)
    assert nnx.state(half).blocks.mlp.up.kernel[...].dtype == jnp.float32


def test_a_mesh_changes_no_number(model):
    mesh = parallel.make_mesh(MeshConfig(), jax.devices()[:1])
    frames = clip(3)
    want = encode_clips(model, [frames], most=4)[0]
    np.testing.assert_allclose(encode_clips(model, [frames], most=4, mesh=mesh)[0], want, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_released_size_can_be_traced(dtype):
    def encode(frames):
        return VisionEncoder(VisionConfig(dtype=dtype), rngs=nnx.Rngs(0)).encode(pixels(frames))

    frames = jax.ShapeDtypeStruct((2, 336, 336, 3), jnp.uint8)
    vectors = jax.eval_shape(encode, frames)
    assert (vectors.shape, vectors.dtype) == ((2, 1024), jnp.float32)


def test_large_matrices_are_spread_over_the_mesh():
    devices = AbstractMesh((1, 2, 2, 1), parallel.MESH_AXES)
    abstract = nnx.state(nnx.eval_shape(lambda: VisionEncoder(CONFIG, rngs=nnx.Rngs(0))))
    layout = parallel.parameter_shardings(abstract, devices)
    block = layout["blocks"]
    assert block["attention"]["query"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert block["attention"]["out"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert block["mlp"]["up"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert layout["patch"]["kernel"].spec == PartitionSpec(None, "fsdp")


def test_resizing_keeps_a_plain_frame_and_whole_numbers():
    plain = np.full((1, 7, 5, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize(jnp.asarray(plain), 4), np.full((1, 4, 4, 3), 77))
    step = np.zeros((1, 4, 4, 3), np.uint8)
    step[:, :, 2:] = 255
    assert resize(jnp.asarray(step), 9).dtype == jnp.uint8
    smooth = resize(jnp.asarray(step, jnp.float32), 9)
    assert smooth.min() < 0  # floats overshoot, uint8 is clamped
    assert smooth.max() > 255
    same = clip(1)
    np.testing.assert_array_equal(resize(jnp.asarray(same), 8), same)


def test_pixels_are_the_references_to_the_bit():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 1, 3)
    half = np.float32(0.5)
    want = (every.astype(np.float32) / np.float32(255) - half) / half
    np.testing.assert_array_equal(jax.jit(pixels)(every), want)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 9}, r"image_size=9 must be a multiple of vision\.patch_size=4"),
        ({"heads": 3}, r"width=16 must be a multiple of 4 \* vision\.heads=3"),
        ({"pool_heads": 3}, r"width=16 must be a multiple of vision\.pool_heads=3"),
        ({"depth": 0}, r"vision\.depth=0 must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_the_users_error(changes, said):
    with pytest.raises(UserError, match=said):
        VisionConfig(**SIZES | {"pool_heads": 4} | changes)


def test_an_image_smaller_than_a_patch_is_refused(model):
    with pytest.raises(UserError, match="3 x 8 pixels are smaller than a patch"):
        model.encode(jnp.zeros((1, 8, 3, 3)))
