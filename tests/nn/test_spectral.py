"""STFT against frames cut one by one; blocks of a wave; the Fourier matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import spectral


@pytest.mark.parametrize("by_product", [True, False])
@pytest.mark.parametrize(("window", "hop"), [(8, 2), (64, 16), (128, 32), (512, 128), (100, 30)])
@pytest.mark.parametrize("samples", [513, 1000, 1024])
def test_stft_equals_frames_cut_one_by_one(window, hop, samples, by_product):
    wave = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    padded = np.pad(wave, ((0, 0), (window // 2, window // 2)), mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, padded.shape[1] - window + 1, hop)
    theirs = np.stack([np.fft.rfft(padded[:, s : s + window] * hann) for s in starts], axis=1)
    real, imaginary = spectral.stft(jnp.asarray(wave), window, hop, by_product=by_product)
    np.testing.assert_allclose(real, theirs.real, atol=1e-4)
    np.testing.assert_allclose(imaginary, theirs.imag, atol=1e-4)


def test_a_wave_shorter_than_half_a_window_is_refused():
    with pytest.raises(UserError, match="1024 samples is too short for an STFT window of 2048"):
        jax.eval_shape(lambda x: spectral.stft(x, 2048, 512), jnp.zeros((1, 1024)))


def test_blocks_overlap_and_are_padded_with_zeros():
    x = jnp.arange(1.0, 9.0)[None]
    got = spectral.blocks(x, 5, 3, 3)
    np.testing.assert_array_equal(got[0], [[1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [7, 8, 0, 0, 0]])


def test_fourier_matrix_is_a_windowed_transform():
    wave = np.random.default_rng(0).normal(size=64).astype(np.float32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    spectrum = np.fft.rfft(wave * hann)
    want = np.concatenate([spectrum.real, spectrum.imag])
    np.testing.assert_allclose(wave @ spectral.dft(64), want, atol=1e-5)
