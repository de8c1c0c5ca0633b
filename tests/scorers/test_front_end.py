"""Resampling against the formula sample by sample; the front end's errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.audio.mel import mel_filters
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers import front_end
from sam_audio_jax.scorers.cnn14 import Cnn14Config

RATES = [(48_000, 32_000), (44_100, 32_000), (16_000, 32_000), (8_000, 32_000), (48_000, 16_000)]


def plain_resample(wave, from_rate, to_rate):
    """The sinc of docs/scoring.md, "Resampling and log-mel", one output sample at a time."""
    divisor = math.gcd(from_rate, to_rate)
    o, n = from_rate // divisor, to_rate // divisor
    base = 0.99 * min(o, n)
    width = math.ceil(6 * o / base)
    padded = np.pad(wave.astype(np.float64), (width, width + o))
    out = []
    for number in range(math.ceil(n * len(wave) / o)):
        stride, p = divmod(number, n)
        j = np.arange(-width, width + o)
        t = np.clip((j / o - p / n) * base, -6, 6)
        taps = np.cos(np.pi * t / 12) ** 2 * np.sinc(t) * base / o
        out.append(padded[stride * o : stride * o + len(j)] @ taps)
    return np.array(out)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@pytest.mark.parametrize("samples", [1, 700, 1537])
def test_every_sample_equals_the_formula(from_rate, to_rate, samples):
    wave = np.random.default_rng(samples).normal(size=(2, samples)).astype(np.float32)
    got = front_end.resample(jnp.asarray(wave), from_rate, to_rate)
    want = np.stack([plain_resample(row, from_rate, to_rate) for row in wave])
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_tones_below_the_lower_nyquist_frequency_stay_and_others_are_removed():
    time = jnp.arange(4800) / 48_000
    low, high = (jnp.sin(2 * jnp.pi * hz * time)[None] for hz in (1_000, 20_000))
    want = jnp.sin(2 * jnp.pi * 1_000 * jnp.arange(3200) / 32_000)
    inside = slice(20, -20)
    got = front_end.resample(low, 48_000, 32_000)[0]
    np.testing.assert_allclose(got[inside], want[inside], atol=2e-3)
    assert jnp.abs(front_end.resample(high, 48_000, 32_000)[0, inside]).max() < 1e-2
    assert front_end.resample(low, 48_000, 48_000) is low


def test_a_wave_that_is_too_short_is_the_users_error():
    filters = mel_filters(8_000, 64, 8, 50.0, 4_000.0)
    with pytest.raises(UserError, match="32 samples is too short for an STFT window of 64"):
        jax.eval_shape(lambda x: front_end.log_mel(x, 64, 16, filters), jnp.zeros((1, 32)))


def test_sizes_of_the_teacher():
    config = Cnn14Config()
    assert (config.width, config.frames_per_segment, config.shortest) == (2048, 32, 9920)
    assert config.segment_s == pytest.approx(0.32)
    with pytest.raises(UserError, match=r"cnn14\.mels=16 must be at least 32"):
        Cnn14Config(mels=16)
    with pytest.raises(UserError, match=r"cnn14\.classes=0 must be a whole number from 1"):
        Cnn14Config(classes=0)
