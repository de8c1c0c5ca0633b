import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.codec import loss
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.codec.mask_loss import mask_error_db
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.refine import wiener


@pytest.fixture(scope="module")
def case(fixtures_dir):
    folder = fixtures_dir / "codec"
    numbers = json.loads((folder / "losses.json").read_text())
    waves = load_file(folder / "losses.safetensors")
    return numbers, jnp.asarray(waves["real"][:, 0]), jnp.asarray(waves["fake"][:, 0])


@pytest.mark.golden
def test_mel_loss_of_each_scale_equals_the_reference(case):
    numbers, real, fake = case
    scales = tuple((scale["window"], scale["n_mels"]) for scale in numbers["mel_scales"])
    assert all(scale["hop"] == scale["window"] // 4 for scale in numbers["mel_scales"])
    ours = loss.mel_losses(real, fake, 48_000, scales)
    np.testing.assert_allclose(ours, numbers["mel_per_scale"], rtol=2e-5)
    total = loss.mel_loss(real, fake, 48_000, scales)
    np.testing.assert_allclose(total, numbers["mel_total"], rtol=1e-5)


@pytest.mark.golden
def test_stft_and_waveform_metrics_equal_the_reference(case):
    numbers, real, fake = case
    np.testing.assert_allclose(loss.stft_metric(real, fake), numbers["stft_total"], rtol=1e-5)
    l1 = loss.waveform_metric(real, fake)
    np.testing.assert_allclose(l1, numbers["waveform_l1"], rtol=1e-6)


def codec_inputs(folder):
    for path in sorted((folder / "codec").glob("*.tensors.safetensors")):
        tensors = load_file(path)
        for name in (name.removesuffix(".kl") for name in tensors if name.endswith(".kl")):
            yield f"{path.name}:{name}", tensors[f"{name}.moments"], tensors[f"{name}.kl"]


@pytest.mark.golden
def test_kl_equals_the_reference(fixtures_dir):
    cases = list(codec_inputs(fixtures_dir))
    assert cases
    for name, moments, theirs in cases:
        mean, scale = jnp.split(jnp.swapaxes(moments, 1, 2), 2, axis=-1)
        ours = loss.kl(mean, jax.nn.softplus(scale) + 1e-4)
        np.testing.assert_allclose(ours, theirs.item(), rtol=2e-5, err_msg=name)


def test_kl_is_zero_for_the_prior():
    zero = jnp.zeros((1, 3, 4))
    np.testing.assert_allclose(loss.kl(zero, zero + 1), 0, atol=1e-6)


def test_gradient_of_the_mel_loss_is_finite_where_the_output_is_silent():
    real = jax.random.normal(jax.random.key(0), (1, 4096))
    scales = ((32, 5), (256, 40))
    grad = jax.grad(lambda fake: loss.mel_loss(real, fake, 16_000, scales))(jnp.zeros((1, 4096)))
    assert bool(jnp.isfinite(grad).all())


def test_losses_of_equal_waves_are_0_and_scale_invariance_holds():
    wave = jax.random.normal(jax.random.key(0), (2, 4096))
    noisy = wave + 0.1 * jax.random.normal(jax.random.key(1), wave.shape)
    measured = loss.codec_metrics(wave, wave, 16_000)
    assert float(measured["mel"]) == float(measured["stft"]) == float(measured["waveform"]) == 0
    assert float(measured["si_sdr_db"]) > 60
    near, far = (loss.codec_metrics(wave, x, 16_000)["si_sdr_db"] for x in (noisy, 3 * noisy))
    np.testing.assert_allclose(near, far, rtol=1e-4)
    np.testing.assert_allclose(near, 20, atol=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mel": -1.0}, "loss.mel"),
        ({"stft_windows": (30,)}, "window 30"),
        ({"kl": float("nan")}, "kl"),
    ],
)
def test_impossible_weights_and_windows_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        CodecLossConfig(**fields)


def test_the_error_of_masks_falls_with_the_error_of_the_stems_and_has_a_gradient():
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 500 * time) * 0.1
    bursts = 0.1 * rng.standard_normal(16_000) * (time % 0.25 < 0.1)
    real = jnp.asarray(np.stack([tone, bursts, np.zeros_like(tone)]), jnp.float32)
    noise = jnp.asarray(rng.standard_normal(real.shape), jnp.float32)
    errors = [
        float(mask_error_db(real[:2], real[:2] + level * noise[:2], 16_000))
        for level in (0.0, 0.03, 0.3)
    ]
    assert errors == sorted(errors)
    assert errors[0] < -12 < errors[2]
    assert float(mask_error_db(real[:2], -real[:2], 16_000)) == pytest.approx(errors[0])
    assert float(mask_error_db(real[:2], real[1::-1], 16_000)) > 0  # the other one
    gradient = jax.grad(lambda fake: mask_error_db(real, fake, 16_000))(real * 0)
    assert jnp.isfinite(gradient).all()


def test_a_mask_is_that_of_the_refinement():
    rng = np.random.default_rng(1)
    real = rng.standard_normal((2, 24_000)).astype(np.float32)
    real *= np.sin(np.arange(24_000) / np.array([[900.0], [1_700.0]])).astype(np.float32)
    fake = real + 0.3 * rng.standard_normal(real.shape).astype(np.float32)
    target, _ = wiener(real.sum(0)[None], *fake, sample_rate=16_000, stem_rate=16_000)
    error = np.square(target[0] - real[0]).sum() / np.square(real).sum(axis=1)
    ours = float(mask_error_db(jnp.asarray(real), jnp.asarray(fake), 16_000))
    assert ours == pytest.approx(10 * np.log10(error).mean(), abs=0.7)
