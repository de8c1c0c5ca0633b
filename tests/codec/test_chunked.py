"""Windows with the right context give the one-shot result; one frame less would not."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.codec import chunked
from sam_audio_jax.codec.codec import Codec, CodecConfig, pad_to_hop
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs

CONFIG = CodecConfig(
    sample_rate=8_000,
    encoder_dim=4,
    encoder_rates=(2, 8, 10),
    latent_dim=16,
    decoder_dim=16,
    decoder_rates=(10, 8, 2),
    codebook_dim=4,
    watermark_rates=(),
)


@pytest.fixture(scope="module")
def codec():
    # Initialised in one compilation.
    return Compiled(nnx.jit(lambda: Codec(CONFIG, rngs=Rngs(0)))())


@pytest.fixture(scope="module")
def wave():
    """113.4 frames: the last window overlaps its neighbour by an odd amount."""
    return np.random.default_rng(0).normal(size=(2, 160 * 113 + 70)).astype(np.float32)


def test_released_rates_need_the_documented_context():
    assert chunked.encoder_context(CodecConfig()) == 6
    assert chunked.decoder_context(CodecConfig()) == 8


def test_encode_in_windows_equals_one_shot(codec, wave):
    whole = chunked.encode_chunked(codec, wave, frames=1000)
    np.testing.assert_allclose(
        chunked.encode_chunked(codec, wave, frames=40), whole, atol=1e-5, rtol=0
    )
    assert whole.shape == (2, 114, 4)


def test_decode_in_windows_equals_one_shot(codec):
    latents = np.random.default_rng(1).normal(size=(2, 101, 4)).astype(np.float32)
    whole = chunked.decode_chunked(codec, latents, frames=1000)
    np.testing.assert_allclose(
        chunked.decode_chunked(codec, latents, frames=40), whole, atol=1e-5, rtol=0
    )
    assert whole.shape == (2, 101 * 160)


def test_less_context_would_be_seen(codec, wave, monkeypatch):
    whole = chunked.encode_chunked(codec, wave, frames=1000)
    monkeypatch.setattr(chunked, "encoder_context", lambda config: 2)
    assert np.abs(chunked.encode_chunked(codec, wave, frames=40) - whole).max() > 1e-4


@pytest.mark.parametrize("samples", [1, 100, 160, 161, 500])
def test_padding_reflects_or_for_very_short_waves_adds_zeros(samples):
    wave = np.arange(1, samples + 1, dtype=np.float32)
    padded = pad_to_hop(wave, 160)
    short = -samples % 160
    assert padded.shape == (samples + short,)
    np.testing.assert_array_equal(padded[:samples], wave)
    if short and short < samples:
        np.testing.assert_array_equal(padded[samples:], wave[-2 : -short - 2 : -1])
    else:
        assert not padded[samples:].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder_rates": (10, 8, 4)}, "must have the product of"),
        ({"decoder_dim": 20}, "must be a multiple of 8"),
        ({"watermark_rates": (2,)}, "a rate for each of 3 decoder blocks"),
        ({"std": 0.0}, "codec.std=0.0 must be a finite number above 0"),
    ],
)
def test_sizes_that_do_not_fit_are_the_users_error(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields)
