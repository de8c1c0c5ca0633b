"""The level of a recording is that of its sound, whatever the gain, the offset and the clicks."""

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.infer.inputs import make_item

RATE = 8_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)


def gain_db(wave, level_db=-30.0):
    return 20 * np.log10(audio.measure_level(wave, RATE, level_db).gain)


@pytest.mark.parametrize("gain", [-75.0, -60.0, -20.0, 12.0, 30.0])
def test_a_gain_is_undone(gain):
    factor = np.float32(10 ** (gain / 20))
    level, other = (audio.measure_level(w, RATE, -30.0) for w in (NOISE, factor * NOISE))
    np.testing.assert_allclose(other.gain * factor, level.gain, rtol=1e-5)
    np.testing.assert_allclose(other.apply(factor * NOISE), level.apply(NOISE), atol=1e-6)
    np.testing.assert_allclose(other.undo(other.apply(factor * NOISE)), factor * NOISE, rtol=1e-5)
    assert np.std(level.apply(NOISE)) == pytest.approx(10 ** (-30 / 20), rel=0.01)


@pytest.mark.parametrize("offset", [0.3, -1.0, 1e-3])
def test_an_offset_is_taken_out_where_it_is_unusual(offset):
    level = audio.measure_level(NOISE + np.float32(offset), RATE, -30.0)
    assert gain_db(NOISE + np.float32(offset)) == pytest.approx(gain_db(NOISE), abs=0.1)
    assert level.offset == pytest.approx(offset if abs(offset) > 0.1 else 0.0, abs=0.01)


def test_silence_and_clicks_do_not_count():
    quiet = 0.01 * NOISE
    padded = np.concatenate([np.zeros(60 * RATE, np.float32), quiet])
    assert gain_db(padded) == pytest.approx(gain_db(quiet), abs=0.1)
    floor = 1e-3 * np.random.default_rng(1).standard_normal(len(padded)).astype(np.float32)
    assert gain_db(padded + 1e-2 * floor) == pytest.approx(gain_db(quiet), abs=0.5)
    clicked = quiet.copy()
    clicked[9_000:9_010] = 1.0
    assert gain_db(clicked) == pytest.approx(gain_db(quiet), abs=0.5)
    levelled = audio.measure_level(clicked, RATE, -30.0).apply(clicked)
    assert np.abs(levelled).max() == 1.0
    clicks = np.zeros(4 * RATE, np.float32)
    clicks[::2_000] = 1.0  # nothing else: they are the sound
    assert gain_db(clicks) <= 0


def test_sparse_peaks_stay_below_full_scale():
    wave = 0.001 * NOISE
    wave[::1_000] = 0.5
    level = audio.measure_level(wave, RATE, -10.0)
    assert np.abs(wave).max() * level.gain <= 1.0 + 1e-6


def test_nothing_is_done_to_silence_nor_without_a_usual_level():
    assert audio.measure_level(0 * NOISE, RATE, -30.0) == audio.AS_RECORDED
    assert audio.measure_level(0 * NOISE + 0.5, RATE, -30.0) == audio.AS_RECORDED
    assert audio.find_level(0 * NOISE, RATE, -30.0) is None
    assert audio.measure_level(NOISE, RATE, None) == audio.AS_RECORDED
    assert audio.AS_RECORDED.apply(NOISE) is NOISE
    assert audio.AS_RECORDED.undo(NOISE) is NOISE


def test_a_quiet_recording_with_a_peak_at_full_scale_is_not_silence():
    wave = 0.001 * NOISE
    wave[::1_000] = 1.0
    assert audio.find_level(wave, RATE, -10.0) == audio.AS_RECORDED
    item = make_item(wave, "dog", (), sample_rate=RATE, codec_rate=RATE, level_db=-10.0)
    np.testing.assert_array_equal(item.wave, wave)


def test_blocks_of_any_size_give_the_same_level():
    wave = np.concatenate([NOISE, 0.1 * NOISE]) + np.float32(0.2)
    meter = audio.LevelMeter(RATE)
    for start in range(0, len(wave), 777):
        meter.add(wave[start : start + 777])
    assert meter.level(-30.0) == audio.measure_level(wave, RATE, -30.0)


def test_the_level_of_hours_is_that_of_the_whole():
    rate = 200
    loud = np.tile(0.1 * NOISE[:rate], 3_000)
    wave = np.concatenate([loud, np.tile(1e-4 * NOISE[:rate], 3_660)]) + np.float32(0.5)
    expected, level = audio.find_level(loud, rate, -30.0), audio.find_level(wave, rate, -30.0)
    assert expected is not None
    assert level is not None
    np.testing.assert_allclose(level.gain, expected.gain, rtol=1e-3)
    np.testing.assert_allclose(level.offset, 0.5, atol=1e-3)
    meter = audio.LevelMeter(rate, longest_s=3_600)  # of a stream
    meter.add(wave)
    last = meter.level(-30.0)
    assert last is not None
    assert last.gain > 100 * level.gain


def test_blocks_of_any_size_give_the_same_offsets():
    channels = np.tile(np.stack([NOISE + 0.3, NOISE - 0.1]), 5).astype(np.float32)
    meter = audio.OffsetMeter(2)
    for start in range(0, channels.shape[1], 777):
        meter.add(channels[:, start : start + 777])
    whole = audio.OffsetMeter(2)
    whole.add(channels)
    np.testing.assert_array_equal(meter._sums, whole._sums)
    np.testing.assert_array_equal(meter.offsets, whole.offsets)


def test_offsets_of_channels():
    channels = np.stack([NOISE, NOISE + 0.3, -NOISE - 0.3])
    np.testing.assert_allclose(audio.find_offsets(channels), [0, 0.3, -0.3], atol=0.01)
    assert audio.without_offsets(channels[:1]) is not None
    np.testing.assert_array_equal(audio.without_offsets(channels[:1]), channels[:1])
