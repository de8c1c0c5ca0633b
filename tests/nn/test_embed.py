import jax
import jax.numpy as jnp
import numpy as np

from sam_audio_jax.nn.embed import dropout, sinusoid


def test_odd_sinusoid_ends_in_a_zero():
    waves = sinusoid(jnp.array([0.0, 0.5]), 7)
    assert waves.shape == (2, 7)
    np.testing.assert_array_equal(waves[:, -1], 0)
    np.testing.assert_array_equal(waves[0, :3], 1)


def test_dropout_is_a_function_of_its_key_and_keeps_the_mean():
    x = jnp.ones((64, 512))
    key = jax.random.key(3)
    once = dropout(x, 0.1, key)
    np.testing.assert_array_equal(once, dropout(x, 0.1, key))
    assert abs(float((once == 0).mean()) - 0.1) < 0.01
    assert abs(float(once.mean()) - 1) < 0.01
    np.testing.assert_array_equal(dropout(x, 0.1, None), x)
