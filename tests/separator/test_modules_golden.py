"""Single modules against `modules.safetensors`: first block, patcher, time, memory, prompts."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.nn import rope
from sam_audio_jax.nn.embed import sinusoid
from sam_audio_jax.nn.norm import RMSNorm
from sam_audio_jax.nn.rngs import Rngs

pytestmark = pytest.mark.golden
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def io(golden):
    return golden.numbers("modules")


def cases(io, prefix):
    """The names before the slash that start with `prefix`."""
    return sorted({name.split("/")[0] for name in io if name.startswith(prefix)})


def test_rotary_positions(golden, io):
    theta = golden.separator.config.dit.theta
    for case in cases(io, "rope"):
        x, rows = io[f"{case}/x"], np.asarray(io[f"{case}/rows"])
        size = x.shape[-1]
        frames = int(rows.max()) + 1
        table = rope.angles(max(frames, x.shape[2]), size, theta)
        if f"{case}/table_cos" in io:
            np.testing.assert_allclose(np.cos(table[rows]), io[f"{case}/table_cos"], atol=1e-6)
            np.testing.assert_allclose(np.sin(table[rows]), io[f"{case}/table_sin"], atol=1e-6)
        picked = table[rows] if x.shape[2] == len(rows) else table[: x.shape[2]]
        halves = jnp.concatenate([x[..., ::2], x[..., 1::2]], axis=-1).transpose(0, 2, 1, 3)
        got = rope.rotate(halves, picked).transpose(0, 2, 1, 3)
        first, second = jnp.split(got, 2, axis=-1)
        pairs = jnp.stack([first, second], axis=-1).reshape(x.shape)
        np.testing.assert_allclose(pairs, io[f"{case}/y"], **TOLERANCE)


def test_rms_norm(golden, io):
    for case in cases(io, "rmsnorm"):
        x = io[f"{case}/x"]
        norm = RMSNorm(x.shape[-1], eps=golden.separator.config.dit.norm_eps, rngs=Rngs(0))
        norm.scale[...] = golden.separator.dit.blocks.attention_norm.scale[0]
        np.testing.assert_allclose(norm(x), io[f"{case}/y"], **TOLERANCE)


def test_attention(golden, io):
    block, config = golden.block(0), golden.separator.config.dit
    x, mask = io["attn/x"], io["attn/mask"].astype(bool)
    angle = rope.angles(x.shape[1], config.head_dim, config.theta)
    np.testing.assert_allclose(block.attention(x, angle=angle), io["attn/self"], **TOLERANCE)
    masked = block.attention(x, angle=angle, mask=mask)
    np.testing.assert_allclose(masked, io["attn/self_masked"], **TOLERANCE)
    np.testing.assert_allclose(block.attention(x), io["attn/self_norope"], **TOLERANCE)
    cross = block.cross_attention(x, io["attn/cross"], mask=io["attn/cross_mask"].astype(bool))
    np.testing.assert_allclose(cross, io["attn/cross_out"], **TOLERANCE)


def test_feed_forward_and_block(golden, io):
    block, config = golden.block(0), golden.separator.config.dit
    np.testing.assert_allclose(block.mlp(io["ffn/x"]), io["ffn/y"], **TOLERANCE)
    x = io["attn/x"]
    got = block(
        x,
        io["block/t"].reshape(x.shape[0], 6, -1),
        io["attn/cross"],
        valid=io["attn/mask"].astype(bool),
        memory_mask=io["attn/cross_mask"].astype(bool),
        angle=rope.angles(x.shape[1], config.head_dim, config.theta),
        key=None,
    )
    np.testing.assert_allclose(got, io["block/y"], **TOLERANCE)


def test_patcher(golden, io):
    patcher = golden.separator.dit.patcher
    for case in cases(io, "patcher"):
        x = io[f"{case}/x"].transpose(0, 2, 1)
        first = patcher.first(x).transpose(0, 2, 1)
        np.testing.assert_allclose(first, io[f"{case}/block1"], **TOLERANCE)
        np.testing.assert_allclose(patcher(x).transpose(0, 2, 1), io[f"{case}/y"], **TOLERANCE)


def test_time_and_context(golden, io):
    dit, time = golden.separator.dit, io["time/t"]
    config = golden.separator.config.dit
    got = sinusoid(time, config.frequency_width)
    np.testing.assert_allclose(got, io["time/sinusoid_dit"], **TOLERANCE)
    np.testing.assert_allclose(sinusoid(time, config.width), io["time/sinusoid_model"], **TOLERANCE)
    vector, rows = dit.time(time)
    np.testing.assert_allclose(vector, io["time/t_embedder"], **TOLERANCE)
    flat = rows.reshape(rows.shape[0], -1)
    np.testing.assert_allclose(flat, io["time/t_block"], **TOLERANCE)
    np.testing.assert_allclose(golden.context(io["context/x"]), io["context/y"], **TOLERANCE)


def test_video_and_anchors(golden, io):
    separator, x = golden.separator, io["align_video/anchor"]
    video = io["align_video/video"].transpose(0, 2, 1)
    np.testing.assert_allclose(x + separator.align_video(video), io["align_video/y"], **TOLERANCE)
    silent = x + separator.align_video(jnp.zeros_like(video))
    np.testing.assert_allclose(silent, io["align_video/y_zero_video"], **TOLERANCE)
    anchors = separator.embed_anchors(
        jnp.take_along_axis(io["anchors/ids"], io["anchors/alignment"], axis=1)
    )
    np.testing.assert_allclose(x + anchors, io["anchors/y"], **TOLERANCE)
