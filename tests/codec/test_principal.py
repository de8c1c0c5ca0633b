import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.principal import principal
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs

CONFIG = CodecConfig(
    sample_rate=8_000,
    encoder_dim=4,
    encoder_rates=(4,),
    latent_dim=8,
    decoder_dim=8,
    decoder_rates=(4,),
    codebook_dim=6,
    mean=0.3,
    std=1.7,
    watermark_rates=(),
)


@pytest.fixture(scope="module")
def codec():
    codec = Codec(CONFIG, rngs=Rngs(3))
    # Two channels repeat others, as in a codec that was trained for a short time.
    kernel = codec.in_proj.direction[...]
    codec.in_proj.direction[...] = kernel.at[..., 4:6].set(kernel[..., :2])
    codec.in_proj.scale[...] = codec.in_proj.scale[...].at[4:6].set(codec.in_proj.scale[...][:2])
    return codec


@pytest.fixture(scope="module")
def wave():
    return jax.random.normal(jax.random.key(0), (2, 400)) * 0.2


@pytest.fixture(scope="module")
def means(codec, wave):
    return np.asarray(codec.moments(wave)[0]).reshape(-1, 6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_channels_that_repeat_others_can_go(codec, wave, means, power):
    rotated = principal(codec, means, 4, power)
    assert rotated.config == dataclasses.replace(CONFIG, codebook_dim=4, mean=0.0, std=1.0)
    expected = codec.decode(codec.encode(wave))
    np.testing.assert_allclose(rotated.decode(rotated.encode(wave)), expected, atol=2e-5)


def test_components_are_uncorrelated_centred_and_of_falling_spread(codec, wave, means):
    deviation = np.sqrt(np.linalg.eigvalsh(np.cov(means, rowvar=False))[::-1][:4])
    for power in (0.0, 0.5, 1.0):
        latents = np.asarray(principal(codec, means, 4, power).encode(wave)).reshape(-1, 4)
        np.testing.assert_allclose(latents.mean(0), 0, atol=1e-4)
        covariance = np.cov(latents, rowvar=False)
        np.testing.assert_allclose(
            covariance, np.diag(deviation ** (2 * (1 - power))), atol=1e-3 * deviation[0]
        )


def test_the_spread_of_the_posterior_follows_the_gain(codec, wave, means):
    plain = principal(codec, means, 4, 0.0).moments(wave)[1]
    white = principal(codec, means, 4, 1.0).moments(wave)[1]
    deviation = np.sqrt(np.linalg.eigvalsh(np.cov(means, rowvar=False))[::-1][:4])
    gain = jnp.log(jnp.expm1(white)) - jnp.log(jnp.expm1(plain))  # before the softplus
    np.testing.assert_allclose(gain, jnp.broadcast_to(-np.log(deviation), gain.shape), atol=1e-2)


def test_refuses_more_channels_than_there_are_and_too_few_frames(codec, means):
    with pytest.raises(UserError, match="channels=7 must be 1 to 6"):
        principal(codec, means, 7)
    with pytest.raises(UserError, match="measured on more than 6 frames, not 6"):
        principal(codec, means[:6], 2)
