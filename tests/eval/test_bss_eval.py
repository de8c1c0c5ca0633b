"""BSS Eval, version 3: the reference's numbers, known filters and noises, silence."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.bss_eval import bss_eval

TOLERANCE_DB = 1e-3


@pytest.mark.golden
def test_ratios_and_permutation_equal_the_reference(fixtures_dir):
    folder = fixtures_dir / "metrics"
    values = json.loads((folder / "metrics_values.json").read_text())["values"]
    signals = load_file(folder / "metrics_io.safetensors")
    estimates, references = signals["mono.estimate"], signals["mono.reference"]
    single = {}  # of the first source alone, by the number of taps
    for key, want in values.items():
        if found := re.fullmatch(r"bss_v3_(\d+)_single_source_sdr", key):
            single[int(found[1])] = want
        if found := re.fullmatch(r"bss_v3_(\d+)(_swapped)?", key):
            ordered = estimates[::-1] if found[2] else estimates
            got = bss_eval(ordered, references, taps=int(found[1]))
            assert got.permutation.tolist() == want["perm"]
            for name in ("sdr", "sir", "sar"):
                np.testing.assert_allclose(getattr(got, name), want[name], atol=TOLERANCE_DB)
    for taps, want in single.items():
        first = bss_eval(estimates[:1], references[:1], taps=taps)
        np.testing.assert_allclose(first.sdr, want, atol=TOLERANCE_DB)
        assert first.sir == np.inf
        np.testing.assert_allclose(first.sar, first.sdr)
    assert any(key.startswith("bss_v3_") for key in values)


def test_a_filter_is_no_error_while_leakage_and_noise_are():
    rng = np.random.default_rng(0)
    references = rng.standard_normal((2, 8_000))
    references[:, -40:] = 0  # so that filtered and delayed sources are whole
    taps = rng.standard_normal(20)
    filtered = np.convolve(references[0], taps)[:8_000]
    leakage, noise = 0.1 * references[1], 0.01 * rng.standard_normal(8_000)
    energy = [np.sum(np.square(x)) for x in (filtered, leakage, noise)]
    got = bss_eval(np.stack([filtered + leakage + noise, references[1]]), references, taps=32)
    assert got.sir[0] == pytest.approx(10 * np.log10(energy[0] / energy[1]), abs=0.2)
    assert got.sar[0] == pytest.approx(10 * np.log10(energy[0] / energy[2]), abs=0.2)
    assert got.sdr[0] == pytest.approx(got.sir[0], abs=0.2)
    assert got.sdr[1] > 100
    unfiltered = bss_eval(np.stack([filtered, references[1]]), references, taps=1)
    assert unfiltered.sdr[0] < 10


def test_without_permutation_estimates_stay_where_they_are():
    references = np.random.default_rng(0).standard_normal((3, 2_000))
    estimates = references[[2, 0, 1]]
    assert bss_eval(estimates, references, taps=8).permutation.tolist() == [1, 2, 0]
    fixed = bss_eval(estimates, references, taps=8, permute=False)
    assert fixed.permutation.tolist() == [0, 1, 2]
    assert (fixed.sdr < 0).all()


def test_silence_has_no_ratio_and_changes_no_other():
    references = np.random.default_rng(0).standard_normal((2, 2_000))
    estimates = references + 0.1 * references[::-1]
    silent = np.stack([references[0], np.zeros(2_000)])
    got = bss_eval(estimates, silent, taps=8)
    assert np.isnan([got.sdr[1], got.sir[1], got.sar[1]]).all()
    np.testing.assert_allclose(got.sdr[0], bss_eval(estimates[:1], references[:1], taps=8).sdr)
    assert got.sir[0] == np.inf
    got = bss_eval(np.stack([estimates[0], np.zeros(2_000)]), references, taps=8)
    assert np.isnan(got.sdr).tolist() == [False, True]


def test_a_tone_whose_delayed_copies_depend_on_each_other():
    tone = np.sin(0.3 * np.arange(3_000))
    got = bss_eval(tone[None] + 1e-3, tone[None], taps=64)
    assert np.isfinite(got.sdr).all()
    assert got.sdr > 40


def test_sources_without_energy_in_most_bands():
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal((2, 6_000)))
    spectrum[:, 300:] = 0  # a tenth of the band
    references = np.fft.irfft(spectrum)
    estimates = references + 0.1 * references[::-1]
    got = bss_eval(estimates, references, taps=64)
    np.testing.assert_allclose(got.sir, 20, atol=1)
    assert (got.sar > 40).all()


def test_other_shapes_are_the_users_error():
    with pytest.raises(UserError, match=r"shape \(1, 5\) do not fit references of shape \(1, 4\)"):
        bss_eval(np.zeros((1, 5)), np.zeros((1, 4)))
