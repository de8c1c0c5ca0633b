"""WavLM's positions and lengths; its numbers are in tests/scorers/test_aesthetics_golden.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.encoders.wavlm import WavlmConfig, WavlmEncoder, relative_buckets
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from tests import tiny

TINY = WavlmConfig(
    convolutions=((3, 4, 2), (5, 3, 2)),
    width=8,
    depth=2,
    heads=2,
    mlp=6,
    position_window=5,
    position_groups=2,
    buckets=8,
    max_distance=6,
)


def test_published_sizes():
    config = WavlmConfig()
    assert (config.frames(160_000), config.shortest, config.head_dim) == (499, 400, 64)
    assert (config.frames(400), config.frames(399), config.frames(0)) == (1, 0, 0)


def test_buckets_are_those_of_the_formula():
    buckets = relative_buckets(1000, 320, 800)
    for query, key in ((0, 0), (5, 0), (0, 79), (80, 0), (0, 81), (0, 200), (999, 100), (0, 999)):
        distance = abs(key - query)
        if distance < 80:
            within = distance
        else:
            within = min(159, 80 + int(80 * math.log(distance / 80) / math.log(10)))
        assert buckets[query, key] == within + 160 * (key > query)
    assert (np.diff(buckets[0, 1:]) >= 0).all()
    assert (buckets[:500, :500] == relative_buckets(500, 320, 800)).all()


def _identity(state):
    return state


def test_frames_without_sound_are_not_attended_to():
    network = tiny.filled(lambda: WavlmEncoder(TINY, rngs=Rngs(0)))
    wave = jnp.asarray(np.random.default_rng(0).standard_normal((2, 60)), jnp.float32)
    wave = wave.at[1].set(wave[0])
    lengths = jnp.array([60, 21])
    valid = network.valid_frames(lengths, 60)
    assert TINY.frames(60) == 14
    assert valid.sum(axis=1).tolist() == [14, 6]  # ceil(21 / (60 // 14))
    states = jax.jit(lambda n, w, length: n.states(w, length, _identity))(network, wave, lengths)
    assert states.shape == (3, 2, 14, 8)
    window = TINY.position_window // 2
    before = slice(0, 6 - window)  # out of reach of the positional convolution
    np.testing.assert_allclose(states[0, 0, before], states[0, 1, before], atol=1e-6)
    assert np.abs(states[1, 0, before] - states[1, 1, before]).max() > 1e-3


def test_settings_and_waves_that_do_not_fit_are_the_users_error():
    for changed, message in (
        ({"convolutions": ()}, "convolutions is empty"),
        ({"heads": 7}, r"wavlm\.width=768 must be a multiple of wavlm\.heads=7"),
        ({"buckets": 318}, r"wavlm\.buckets=318 must be a multiple of 4"),
        ({"max_distance": 80}, r"below four times wavlm\.max_distance=80"),
    ):
        with pytest.raises(UserError, match=message):
            WavlmConfig(**changed)
    network = nnx.eval_shape(lambda: WavlmEncoder(TINY, rngs=Rngs(0)))
    with pytest.raises(UserError, match="waves of 7 samples are too short for WavLM: at least 8"):
        network.states(jnp.zeros((1, 7)), jnp.array([7]), _identity)
