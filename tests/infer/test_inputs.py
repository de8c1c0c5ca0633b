"""A caller's mistakes are errors of one line; what is allowed works."""

import math

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs

WAVE = np.full(8_000, 0.1, np.float32)


@pytest.mark.parametrize(
    ("samples", "sample_rate", "message"),
    [
        (WAVE, None, "say its sample_rate"),
        (WAVE, 0, "sample_rate=0 must be a whole number of Hz"),
        (WAVE, 16, "sample_rate=16 must be a whole number of Hz from 50 to 50000000"),
        ((WAVE * 2**15).astype(np.int16), 8_000, "floats with full scale 1.0, not int16"),
        (WAVE.reshape(1, 1, -1), 8_000, r"allowed are \[samples\]"),
        (WAVE.reshape(-1, 2), 8_000, "transposed"),
        (WAVE[:0], 8_000, "has no samples"),
        (np.full_like(WAVE, np.nan), 8_000, "NaN or infinite"),
        (np.where(np.arange(8_000) == 9, 1e30, WAVE), 8_000, "has a sample of 1e.30 times full"),
        (0 * WAVE, 8_000, "silent .all zeros."),
        (5e-5 * WAVE, 8_000, "silent .-106 dBFS."),
    ],
)
def test_wrong_arrays(samples, sample_rate, message):
    with pytest.raises(UserError, match=message) as caught:
        inputs.read(samples, sample_rate, "street")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [math.nan, math.inf, 22_050.5, "8000", True, None, np.ones(2)])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(UserError, match="must be a whole number of Hz"):
        audio.check_rate(rate)
    assert audio.check_rate(np.float64(16_000)) == 16_000


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([("+", 0.5, 1.2)], r"span \+ 0.5-1.2 s of street must have start < end .*0-1.00 s"),
        ([("+", 0.5, 0.5)], "must have start < end"),
        ([("-", -0.1, 0.5)], "within the audio"),
        ([("*", 0.1, 0.5)], r"token '\*' of street is unknown; allowed: '\+'"),
        ([("+", 0.1)], r"must be \[token, start, end\]"),
        (["+"], r"must be \[token, start, end\]"),
        ("+", "must be a list"),
        ([("+", "a", 1)], "in seconds"),
        ([("+", 0.0, float("nan"))], "finite times"),
    ],
)
def test_wrong_spans(spans, message):
    with pytest.raises(UserError, match=message):
        inputs.check_spans(spans, 1.0, "street")


def test_a_span_may_be_rounded_up_to_the_end():
    assert inputs.check_spans([["+", 0, 1.004]], 1.0, "street") == (("+", 0.0, 1.0),)


def test_spans_in_an_array_are_one_line():
    spans = np.array([["+", 0.1, 0.5]])
    with pytest.raises(UserError, match=r"spans of audio must be a list like .*, not array"):
        inputs.make_item(WAVE, "dog", spans, sample_rate=8_000, codec_rate=8_000)


def test_an_item_is_mono_at_the_codecs_rate(tmp_path):
    stereo = np.stack([WAVE, 3 * WAVE])
    audio.write_wav(tmp_path / "street.wav", stereo, 8_000)
    item = inputs.make_item(
        tmp_path / "street.wav", "dog", [("-", 0, 0.5)], sample_rate=None, codec_rate=4_000
    )
    assert item.wave.shape == (4_000,)
    np.testing.assert_allclose(item.wave[100:-100], 0.2, atol=1e-3)
    assert (item.text, item.spans, item.flat) == ("dog", (("-", 0.0, 0.5),), False)
    np.testing.assert_array_equal(item.recording.samples, stereo)


def test_noise_is_drawn_the_same_for_every_length():
    long, short = inputs.draw_noise(3, 70, 6), inputs.draw_noise(3, 20, 6)
    np.testing.assert_array_equal(long[:20], short)
    assert abs(float(long.mean())) < 0.2
    assert 0.8 < float(long.std()) < 1.2


def test_wrong_noise(tmp_path):
    with pytest.raises(UserError, match=r"shape \(5, 6\); this recording .* \(4, 6\)"):
        inputs.check_noise(np.zeros((5, 6), np.float32), 4, 6)
    with pytest.raises(UserError, match="NaN"):
        inputs.check_noise(np.full((4, 6), np.nan), 4, 6)
    with pytest.raises(UserError, match="no noise file"):
        inputs.load_noise(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(UserError, match=r"no \.npy array"):
        inputs.load_noise(tmp_path / "text.npy")
    assert inputs.check_noise(np.zeros((4, 6)), 4, 6).shape == (1, 4, 6)
