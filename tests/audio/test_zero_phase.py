import numpy as np
import pytest

from sam_audio_jax import audio

RATE = 48_000


@pytest.mark.parametrize("samples", [1, 2, 97, 1_920, 5 * 1_920, 7 * 1_921])
def test_gains_are_those_of_one_long_transform(samples):
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    found = audio.zero_phase(wave, 1 / (1 + audio.frequencies(samples, RATE) / 1_000))
    gains = 1 / (1 + np.fft.rfftfreq(samples, 1_000 / RATE))
    expected = np.fft.irfft(np.fft.rfft(wave.astype(np.float64)) * gains, samples)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
