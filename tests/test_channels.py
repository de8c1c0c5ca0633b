"""Channels become one without losing sound, and the mean stays where it loses none."""

import numpy as np
import pytest
import scipy.signal

from sam_audio_jax import audio

RATE = 8_000


def bursts(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Coloured noise that comes and goes, as sounds do."""
    rng = np.random.default_rng(seed)
    size = int(seconds * RATE)
    band = scipy.signal.butter(2, rng.uniform(100, 2_000) * np.array([1, 1.5]), "band", fs=RATE)
    envelope = np.repeat(rng.random(size // 800 + 1) > 0.5, 800)[:size]
    return scipy.signal.lfilter(*band, rng.standard_normal(size) * envelope).astype(np.float32)


X, Y, Z = (bursts(seed) for seed in range(3))
ZERO = np.zeros_like(X)


def kept_db(channels, sound):
    """How loud a sound of the channels is in their mix, against its loudest channel."""
    gains = audio.mono(np.asarray(sound, np.float32), audio.mixing_weights(channels, RATE))
    loudest = max(np.std(one) for one in sound)
    return 20 * np.log10(np.std(gains) / loudest + 1e-12)


@pytest.mark.parametrize(
    "channels",
    [
        [X],
        [X, X],
        [X, 0.5 * X],
        [X, ZERO],
        [X, Y],
        [0.8 * X + 0.3 * Y, 0.3 * X + 0.8 * Y],
        [X[8:], X[:-8]],
        [ZERO, ZERO, X, ZERO, ZERO, ZERO],
        [X] * 8,
        [X, Y, 0.5 * X + 0.5 * Y, 0.1 * Z, Z, X],
        [ZERO, ZERO],
        list(np.random.default_rng(0).standard_normal((2, 9_000)).astype(np.float32)),
    ],
)
def test_the_mean_of_ordinary_channels_is_kept_to_the_bit(channels):
    channels = np.asarray(channels, np.float32)
    weights = audio.mixing_weights(channels, RATE)
    assert audio.is_mean(weights)
    np.testing.assert_array_equal(audio.mono(channels, weights), channels.mean(0))


def inverted_highs(wave):
    high = scipy.signal.sosfiltfilt(
        scipy.signal.butter(4, 700, "high", fs=RATE, output="sos"), wave
    )
    return (wave - 2 * high).astype(np.float32)


@pytest.mark.parametrize(
    "sounds",  # each with its part in every channel; the channels are their sums
    [
        [[X, -X]],
        [[X, -0.95 * X]],
        [[X + 0.3, -X]],
        [[X, X], [Y, -Y]],
        [[X, X], [0.5 * Y, -0.5 * Y]],
        [[X, inverted_highs(X)]],
        [[X, np.where(np.arange(len(X)) < 8_000, X, -X)]],
        [[X, -X, ZERO, ZERO], [ZERO, ZERO, Y, -Y]],
        [[X, -X, ZERO, ZERO, ZERO, ZERO], [ZERO, ZERO, Y, ZERO, ZERO, ZERO]],
        [[X, -X] * 4],
        [[X, ZERO], [ZERO, Y], [Z, -Z]],
    ],
)
@pytest.mark.parametrize("gain", [1e-4, 1.0])
def test_no_sound_is_lost_where_channels_cancel(sounds, gain):
    sounds = gain * np.asarray(sounds, np.float32)
    channels = sounds.sum(0)
    assert not audio.is_mean(audio.mixing_weights(channels, RATE))
    least = -20 * np.log10(len(channels)) - 3
    assert all(kept_db(channels, sound) > min(least, -9) for sound in sounds)


def test_opposite_channels_give_the_sound_itself():
    channels = np.stack([X, -X])
    weights = audio.mixing_weights(channels, RATE)
    np.testing.assert_allclose(audio.mono(channels, weights), X, atol=1e-30)
    assert audio.describe(weights) == "0.50 x channel 1 - 0.50 x channel 2"


def test_the_mix_of_hours_is_that_of_the_whole():
    rate = 200
    second = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    opposite, equal = np.stack([second, -second]), np.tile(second, (2, 3_601))
    weights = audio.mixing_weights(np.concatenate([opposite, equal], axis=1), rate)
    assert not audio.is_mean(weights)


def test_blocks_of_any_size_give_the_same_mix():
    channels = np.stack([X + Y, X - Y])
    mixer = audio.ChannelMixer(2, RATE)
    for start in range(0, len(X), 777):
        mixer.add(channels[:, start : start + 777])
    np.testing.assert_array_equal(mixer.weights, audio.mixing_weights(channels, RATE))
