"""Clips of any number of frames and of any size give the features that each frame gives alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.encoders import clips
from sam_audio_jax.encoders.clips import encode_clips, pixels, resize
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import jitted
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from tests.tiny import filled

SIZES = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "mlp": 24}
CONFIG = VisionConfig(**SIZES, output=6, pool_heads=4)
RNG = np.random.default_rng(0)


def tower(config: VisionConfig = CONFIG) -> VisionEncoder:
    return filled(lambda: VisionEncoder(config, rngs=Rngs(0)))


@pytest.fixture(scope="module")
def model() -> VisionEncoder:
    return tower()


def clip(frames, height=8, width=8):
    return RNG.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_batches_and_other_clips_change_no_number(model):
    several = [clip(5), clip(1), clip(9, 11, 7)]
    together = encode_clips(model, several, batch_size=4)
    assert [rows.shape for rows in together] == [(len(c), CONFIG.output) for c in several]
    for frames, rows in zip(several, together, strict=True):
        alone = encode_clips(model, [frames], batch_size=4)[0]
        np.testing.assert_allclose(alone, rows, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_clip_may_come_in_pieces(model):
    frames = clip(7, 11, 7)
    whole = encode_clips(model, [frames], batch_size=4)[0]
    pieces = (frames[start : start + 3] for start in range(0, len(frames), 3))
    np.testing.assert_array_equal(encode_clips(model, [pieces], batch_size=4)[0], whole)


def test_many_lengths_compile_few_programs(model):
    before = jitted(clips._encode)._cache_size()
    for frames in range(1, 12):
        encode_clips(model, [clip(frames), clip(2)], batch_size=4, normalize=False)
    assert jitted(clips._encode)._cache_size() - before <= 3  # 1, 2 and 4 frames


def test_normalised_vectors_are_the_raw_ones_divided_by_their_lengths(model):
    frames = clip(2)
    raw = encode_clips(model, [frames], batch_size=2, normalize=False)[0]
    unit = encode_clips(model, [frames], batch_size=2)[0]
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), unit, atol=1e-6)


def test_no_clips_and_empty_clips(model):
    assert encode_clips(model, []) == []
    with pytest.raises(UserError, match="clip 1 has no frames"):
        encode_clips(model, [clip(2), clip(0)], batch_size=2)


def test_bfloat16_is_close(model):
    half = tower(VisionConfig(**SIZES, output=6, pool_heads=4, dtype="bfloat16"))
    frames = clip(4)
    got, want = (encode_clips(network, [frames], batch_size=4)[0] for network in (half, model))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.05)
    assert nnx.state(half).blocks.mlp.up.kernel[...].dtype == jnp.float32


def test_a_mesh_changes_no_number(model):
    mesh = parallel.make_mesh(MeshConfig(), jax.devices()[:1])
    frames = clip(3)
    want = encode_clips(model, [frames], batch_size=4)[0]
    got = encode_clips(model, [frames], batch_size=4, mesh=mesh)[0]
    np.testing.assert_allclose(got, want, atol=1e-6)


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


def test_pixels_equal_the_references_bit_by_bit():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 1, 3)
    half = np.float32(0.5)
    want = (every.astype(np.float32) / np.float32(255) - half) / half
    np.testing.assert_array_equal(jax.jit(pixels)(every), want)
