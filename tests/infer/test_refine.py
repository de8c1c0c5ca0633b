"""The refinement divides the recording: exact sums, no edges, the same rate and channels."""

import dataclasses

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.refine import DEFAULT, RefineConfig, divide, gate, wiener


def gated_noise(rng, size, rate, period_s, phase):
    """Noise that is silent in every second half of a period."""
    time = np.arange(size) / rate
    return (0.1 * rng.standard_normal(size) * ((time / period_s + phase) % 1 < 0.5)).astype("f4")


def si_sdr(estimate, reference):
    part = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    return 10 * np.log10(np.sum(part**2) / np.sum((part - estimate) ** 2))


@pytest.mark.parametrize("bits", [16, 24])
def test_stems_of_integer_recordings_add_up_exactly(rng, bits):
    mixture = np.round(rng.uniform(-1, 1, (2, 9_999)) * 2 ** (bits - 1)) / 2 ** (bits - 1)
    mixture = mixture.astype(np.float32)
    stems = 0.3 * rng.standard_normal((2, 4_000)).astype(np.float32)
    target, residual = wiener(mixture, *stems, sample_rate=20_000, stem_rate=8_000)
    assert target.dtype == residual.dtype == np.float32
    np.testing.assert_array_equal(target + residual, mixture)
    assert 0.05 < np.std(target) < np.std(mixture)


def test_stems_of_float_recordings_add_up_to_the_last_place(rng):
    mixture = rng.standard_normal((1, 5_000)).astype(np.float32) * np.float32(1e-3)
    target, residual = divide(mixture, rng.standard_normal((1, 5_000)).astype(np.float32))
    ulp = np.spacing(np.maximum(np.abs(target), np.abs(residual)))
    assert np.all(np.abs((target + residual) - mixture) <= ulp)


@pytest.mark.parametrize("samples", [1, 7, 500, 4_801])
@pytest.mark.parametrize(("sample_rate", "stem_rate"), [(48_000, 16_000), (8_000, 16_000)])
def test_any_length_and_rate(rng, samples, sample_rate, stem_rate):
    mixture = rng.uniform(-0.5, 0.5, (3, samples)).astype(np.float32)
    stems = rng.standard_normal((2, max(1, samples * stem_rate // sample_rate))).astype(np.float32)
    target, residual = wiener(mixture, *stems, sample_rate=sample_rate, stem_rate=stem_rate)
    assert target.shape == residual.shape == mixture.shape
    assert np.isfinite(target).all()
    np.testing.assert_allclose(target + residual, mixture, atol=1e-7)


def test_true_stems_separate_bursts_from_a_tone(rng):
    rate, size = 16_000, 32_000
    bursts = gated_noise(rng, size, rate, 0.4, 0.0)
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(size) / rate)).astype(np.float32)
    target, residual = wiener((bursts + tone)[None], bursts, tone, sample_rate=rate, stem_rate=rate)
    assert si_sdr(target[0], bursts) > 12
    assert si_sdr(residual[0], tone) > 12


def test_above_the_codec_its_highest_bands_decide(rng):
    rate, size = 48_000, 96_000
    early = gated_noise(rng, size, rate, 2.0, 0.0)
    late = gated_noise(rng, size, rate, 2.0, 0.5)
    stems = [audio.resample(wave, rate, 16_000) for wave in (early, late)]
    target, _ = wiener((early + late)[None], *stems, sample_rate=rate, stem_rate=16_000)
    high = np.abs(np.fft.rfft(target[0].reshape(2, -1)))[:, 10_000:]  # above 10 kHz, two halves
    assert np.sum(high[0] ** 2) > 100 * np.sum(high[1] ** 2)


def test_a_silent_residual_leaves_the_mixture_up_to_its_edges(rng):
    mixture = np.full((1, 3_000), 0.25, np.float32)
    stem = 0.1 * rng.standard_normal(3_000).astype(np.float32)
    target, residual = wiener(
        mixture, stem, np.zeros_like(stem), sample_rate=8_000, stem_rate=8_000
    )
    np.testing.assert_allclose(target, mixture, atol=1e-4)
    assert np.abs(residual).max() < 1e-4


def test_silent_stems_leave_everything_in_the_residual(rng):
    mixture = rng.standard_normal((2, 3_000)).astype(np.float32)
    silence = np.zeros(3_000, np.float32)
    target, residual = wiener(mixture, silence, silence, sample_rate=8_000, stem_rate=8_000)
    np.testing.assert_array_equal(residual, mixture)
    np.testing.assert_array_equal(target, 0)


def test_a_floor_bounds_both_stems_from_below(rng):
    """Where a stem is silent it has that share of the recording; else it has part of the mask."""
    rates = {"sample_rate": 8_000, "stem_rate": 8_000}
    mixture = rng.standard_normal((2, 8_000)).astype(np.float32)
    stems, silence = rng.standard_normal((2, 8_000)).astype(np.float32), np.zeros(8_000, np.float32)
    floor = dataclasses.replace(DEFAULT, floor=0.05)
    inner = slice(800, -800)  # the last windows have less than the whole signal
    target, _ = wiener(mixture, silence, stems[0], **rates, config=floor)
    np.testing.assert_allclose(target, 0.05 * mixture, atol=1e-5)
    target, rest = wiener(mixture, stems[0], silence, **rates, config=floor)
    np.testing.assert_allclose(rest[:, inner], 0.05 * mixture[:, inner], atol=1e-4)
    target, rest = wiener(mixture, *stems, **rates, config=floor)
    free, _ = wiener(mixture, *stems, **rates)
    np.testing.assert_allclose(target, 0.05 * mixture + 0.9 * free, atol=1e-5)
    np.testing.assert_allclose(target + rest, mixture, atol=1e-6)


def test_blocks_change_nothing(rng):
    mixture = rng.standard_normal((1, 40_000)).astype(np.float32)
    stems = rng.standard_normal((2, 40_000)).astype(np.float32)
    whole = wiener(mixture, *stems, sample_rate=8_000, stem_rate=8_000)
    short = dataclasses.replace(DEFAULT, block_s=0.7)
    parts = wiener(mixture, *stems, sample_rate=8_000, stem_rate=8_000, config=short)
    np.testing.assert_allclose(parts[0], whole[0], atol=2e-6)


def test_channels_share_one_mask(rng):
    one = rng.standard_normal(4_000).astype(np.float32)
    stems = rng.standard_normal((2, 4_000)).astype(np.float32)
    target, _ = wiener(np.stack([one, -2 * one]), *stems, sample_rate=8_000, stem_rate=8_000)
    np.testing.assert_allclose(target[1], -2 * target[0], atol=1e-5)


def test_refuses_impossible_settings():
    with pytest.raises(UserError, match=r"window_s=0\.0 must be a finite number above 0"):
        RefineConfig(window_s=0.0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_gate_silences_the_target_outside_the_spans_and_changes_nothing_inside(rng):
    mixture = rng.standard_normal((2, 40_000)).astype(np.float32)
    stems = rng.standard_normal((2, 40_000)).astype(np.float32)
    rates = {"sample_rate": 8_000, "stem_rate": 8_000}
    spans = [("+", 0.5, 1.5), ("-", 2.0, 2.5), ("+", 3.0, 3.2)]
    free, _ = wiener(mixture, *stems, **rates, spans=spans)
    closing = dataclasses.replace(DEFAULT, gate=True, gate_margin_s=0.25, gate_ramp_s=0.05)
    bounded, rest = wiener(mixture, *stems, **rates, spans=spans, config=closing)
    np.testing.assert_allclose(bounded + rest, mixture, atol=1e-6)
    time = np.arange(40_000) / 8_000
    near = [(time >= a - 0.25) & (time <= b + 0.25) for _, a, b in (spans[0], spans[2])]
    far = [(time < a - 0.3) | (time > b + 0.3) for _, a, b in (spans[0], spans[2])]
    np.testing.assert_allclose(bounded[:, near[0] | near[1]], free[:, near[0] | near[1]], atol=1e-6)
    assert not bounded[:, far[0] & far[1]].any()
    np.testing.assert_array_equal(wiener(mixture, *stems, **rates, config=closing)[0], free)
    short = dataclasses.replace(closing, block_s=0.7)
    parts, _ = wiener(mixture, *stems, **rates, spans=spans, config=short)
    np.testing.assert_allclose(parts, bounded, atol=2e-6)


def test_a_gate_looks_at_the_samples_around_its_spans_alone(monkeypatch):
    """An hour with a thousand spans took half an hour."""
    spans = [("+", 5.0 * number, 5.0 * number + 0.1) for number in range(200)]
    config = dataclasses.replace(DEFAULT, gate=True)
    seen = []
    maximum = np.maximum
    monkeypatch.setattr(np, "maximum", lambda a, b: seen.append(np.size(a)) or maximum(a, b))
    gain = gate(spans, 100_000, 60_000, 1_000, config)
    assert sum(seen) < 60_000
    time = 100 + np.arange(60_000) / 1_000
    distance = np.abs((time + 2.5) % 5 - 2.55) - 0.05
    expected = np.clip(1 - (distance - config.gate_margin_s) / config.gate_ramp_s, 0, 1)
    np.testing.assert_allclose(gain, expected, atol=1e-6)
