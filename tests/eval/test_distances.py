"""SI-SDR equals the reference's numbers; the log-mel distance has the promised properties."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.audio import si_sdr
from sam_audio_jax.eval.distances import (
    log_mel_distance,
    si_sdr_improvement,
    snr,
    stft_distance,
    track_sdr,
)

TOLERANCE_DB = 1e-3


@pytest.fixture(scope="module")
def case(fixtures_dir):
    folder = fixtures_dir / "metrics"
    values = json.loads((folder / "metrics_values.json").read_text())["values"]
    return load_file(folder / "metrics_io.safetensors"), values


@pytest.mark.golden
def test_si_sdr_equals_reference(case):
    signals, expected = case
    reference, estimate, mixture = (
        signals[f"mono.{name}"].astype(np.float64) for name in ("reference", "estimate", "mixture")
    )
    mixtures = np.broadcast_to(mixture, reference.shape)
    for key, ours in (
        ("si_sdr", si_sdr(estimate, reference)),
        ("si_sdr_zero_mean", si_sdr(estimate, reference, zero_mean=True)),
        ("si_sdr_mixture", si_sdr(mixtures, reference)),
        ("si_sdr_improvement", si_sdr_improvement(estimate, reference, mixtures)),
    ):
        np.testing.assert_allclose(ours, expected[key], atol=TOLERANCE_DB, err_msg=key)


@pytest.mark.golden
def test_ratios_without_scaling_equal_the_reference(case):
    signals, expected = case
    wide = {name: signal.astype(np.float64) for name, signal in signals.items()}
    got = snr(wide["mono.estimate"], wide["mono.reference"])
    np.testing.assert_allclose(got, expected["snr"], atol=TOLERANCE_DB)
    got = track_sdr(wide["stereo.estimate"], wide["stereo.reference"])
    np.testing.assert_allclose(got, expected["track_sdr_mdx"], atol=TOLERANCE_DB)


@pytest.mark.golden
def test_silence_stays_finite_as_in_the_reference(case):
    signals, values = case
    expected, sound = values["edge_float32"], signals["edge.signal"]
    silence = np.zeros_like(sound)
    assert si_sdr(silence, silence) == pytest.approx(expected["both_zero"], abs=TOLERANCE_DB)
    assert si_sdr(silence, sound) == pytest.approx(expected["zero_estimate"], abs=TOLERANCE_DB)
    assert si_sdr(sound, silence) == pytest.approx(expected["zero_reference"], abs=TOLERANCE_DB)


def test_si_sdr_of_known_noise():
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(50_000)
    noise = rng.standard_normal(50_000)
    noise -= sound * (noise @ sound) / (sound @ sound)
    noise *= np.sqrt(0.1 * (sound @ sound) / (noise @ noise))
    assert si_sdr(3 * (sound + noise), sound) == pytest.approx(10.0, abs=1e-6)


def test_log_mel_distance_ignores_phase_and_counts_level():
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(16_000).astype(np.float32)
    assert log_mel_distance(sound, sound, 16_000) == 0
    assert log_mel_distance(-sound, sound, 16_000) == pytest.approx(0, abs=1e-4)
    assert log_mel_distance(sound / 10, sound, 16_000) == pytest.approx(20, abs=0.1)
    other = rng.standard_normal(16_000).astype(np.float32)
    assert si_sdr(other, sound) < -20
    assert log_mel_distance(other, sound, 16_000) < 5


def test_log_mel_distance_ignores_what_is_below_the_floor():
    sound = np.zeros(16_000, np.float32)
    sound[:4_000] = np.sin(np.arange(4_000) * 0.3)
    hiss = 1e-6 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    assert log_mel_distance(sound + hiss, sound, 16_000) < 0.01
    assert np.isfinite(log_mel_distance(sound, np.zeros_like(sound), 16_000))


def test_ratios_of_silence_are_finite():
    silence, sound = np.zeros((100, 2)), np.ones((100, 2))
    assert track_sdr(silence, silence) == 0
    assert track_sdr(sound, silence) == pytest.approx(10 * np.log10(1e-7 / 200))
    assert snr(silence[:, 0], silence[:, 0]) == 0
    assert snr(sound[:, 0], sound[:, 0]) == pytest.approx(10 * np.log10(100 / 2**-52))


def test_stft_distance_ignores_phase_and_counts_level():
    sound = np.random.default_rng(0).standard_normal(16_000)
    assert stft_distance(sound, sound) == 0
    assert stft_distance(-sound, sound) == pytest.approx(0, abs=1e-9)
    assert stft_distance(sound / 10, sound) == pytest.approx(0.9 + np.log(10), abs=1e-3)
    one, other = (stft_distance(sound / 10, sound, [window]) for window in (512, 2048))
    assert stft_distance(sound / 10, sound, [512, 2048]) == pytest.approx((one + other) / 2)
    assert np.isfinite(stft_distance(sound, np.zeros_like(sound)))
