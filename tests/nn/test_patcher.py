import jax
import numpy as np

from sam_audio_jax.nn.norm import ItemNorm
from sam_audio_jax.nn.patcher import Patcher
from sam_audio_jax.nn.rngs import Rngs


def signal(batch=2, frames=9, width=6):
    return jax.random.normal(jax.random.key(0), (batch, frames, width))


def test_a_masked_norm_is_the_norm_of_the_item_alone():
    x, norm = signal(), ItemNorm(6, rngs=Rngs(0))
    norm.bias[...] = norm.bias[...] + 1.0
    valid = np.arange(9)[None] < np.array([[5], [9]])
    got = jax.jit(lambda x, valid: norm(x, valid))(x, valid)
    np.testing.assert_allclose(got[0, :5], norm(x[:1, :5])[0], atol=1e-5)
    np.testing.assert_allclose(got[1], norm(x[1:])[0], atol=1e-5)
    assert not got[0, 5:].any()


def test_a_mask_of_all_frames_is_no_mask():
    x, patcher = signal(), Patcher(6, dtype="float32", rngs=Rngs(0))
    run = jax.jit(lambda x, valid: patcher(x, valid))
    np.testing.assert_allclose(run(x, np.ones((2, 9), bool)), run(x, None), atol=1e-5)


def test_masked_frames_depend_on_their_neighbours_and_keep_the_residual():
    """Only the norms' outputs are masked: both convolutions reach one frame into the padding."""
    x, patcher = signal(), Patcher(6, dtype="float32", rngs=Rngs(0))
    valid = np.broadcast_to(np.arange(9) < 4, (2, 9))
    added = jax.jit(lambda x, valid: patcher(x, valid))(x, valid) - x
    changed = np.abs(added).max(axis=(0, 2)) > 1e-6
    assert changed.tolist() == [True] * 5 + [False] * 4
