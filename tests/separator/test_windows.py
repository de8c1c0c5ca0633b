"""Windows cover every frame, weights add up to 1, merging is the weighted mean."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.separator import windows
from sam_audio_jax.separator.windows import lay_windows


@pytest.fixture
def rng():
    return np.random.default_rng(0)


SIZES = [(20, 20, 5), (21, 20, 5), (35, 20, 5), (36, 20, 5), (100, 20, 0), (97, 20, 15), (9, 4, 3)]


@pytest.mark.parametrize(("frames", "window", "overlap"), SIZES)
def test_every_frame_is_covered_with_weight_one(frames, window, overlap):
    laid = lay_windows(frames, window, overlap)
    total = np.zeros(frames)
    for start, weights in zip(laid.starts, laid.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + window] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    steps = np.diff(laid.starts)
    assert (steps[:-1] == window - overlap).all()
    assert laid.starts[0] == 0
    assert laid.starts[-1] + window == frames


def test_weights_of_an_overlap_rise_and_fall_linearly():
    left, right = lay_windows(35, 20, 5).weights
    np.testing.assert_array_equal(left[:15], 1)
    np.testing.assert_allclose(right[:5], np.arange(1, 6) / 6, rtol=1e-6)
    np.testing.assert_allclose(left[15:], np.arange(5, 0, -1) / 6, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(20, 20, 20), (20, 20, -1), (10, 20, 5), (10, 0, 0)])
def test_windows_that_cannot_be(sizes):
    with pytest.raises(UserError, match=r"allowed are 0 to|fewer than a window"):
        lay_windows(*sizes)


def test_merging_is_the_weighted_sum_whatever_the_batch(rng):
    laid = lay_windows(97, 20, 15)  # up to four windows on a frame
    x = rng.standard_normal((103, 3)).astype(np.float32)
    gains = {int(start): rng.uniform(1, 2) for start in laid.starts}
    expected = np.zeros_like(x)
    for start, weights in zip(laid.starts, laid.weights, strict=True):
        part = slice(start, start + 20)
        expected[part] += gains[int(start)] * x[part] * weights[:, None]
    table = np.zeros(103, np.float32)
    table[list(gains)] = list(gains.values())
    for batch in (1, 4, 32):
        batches = -(-len(laid.starts) // batch)
        starts = np.zeros((batches + 2) * batch, np.int32)
        weights = np.zeros((len(starts), 20), np.float32)
        starts[: len(laid.starts)], weights[: len(laid.starts)] = laid.starts, laid.weights
        merged = windows.merged_velocity(
            lambda pieces, begin: pieces * jnp.asarray(table)[begin][:, None, None],
            jnp.asarray(x),
            jnp.asarray(starts.reshape(-1, batch)),
            jnp.asarray(weights.reshape(-1, batch, 20)),
            jnp.asarray(batches),
        )
        np.testing.assert_allclose(merged, expected, atol=1e-6)
        assert not np.asarray(merged)[97:].any()
