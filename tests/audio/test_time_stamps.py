"""Containers store the time of each packet; a player follows it."""

import numpy as np
import pytest

from sam_audio_jax import audio
from tests.audio.recordings import RATE, by_av, lag, level, sound

WAVE = sound(3.0)
CONTAINERS = [
    ("mkv", "libopus"),
    ("webm", "libopus"),
    ("mp4", "aac"),
    ("mka", "flac"),
    ("ts", "aac"),
    ("mkv", "pcm_s16le"),
]


@pytest.mark.parametrize(("kind", "codec"), CONTAINERS)
def test_holes_are_silent_and_what_follows_keeps_its_time(tmp_path, kind, codec):
    holes = [(0.8, 1.3), (1.9, 2.15)]
    loaded = audio.load(by_av(tmp_path / f"a.{kind}", WAVE, codec, holes=holes))
    assert loaded.samples.shape[1] == pytest.approx(WAVE.shape[1], abs=0.04 * RATE)
    assert "holes are silent" in loaded.notes[0]
    for start, stop in holes:
        assert level(loaded.samples, start + 0.1, stop - 0.01) < 1e-4
    after = slice(round(2.3 * RATE), None)
    encoder_delay = 0.022 if kind == "ts" else 0.001  # MPEG-TS does not store it
    assert abs(lag(loaded.samples[:, after], WAVE[:, after])) < encoder_delay


@pytest.mark.parametrize("size", [0.0004, 0.003, 0.01])
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_jitter_of_time_stamps_changes_no_sample(tmp_path, kind, size):
    codec = "libopus" if kind == "mkv" else "aac"
    steady = audio.load(by_av(tmp_path / f"a.{kind}", WAVE, codec))
    jitter = np.random.default_rng(0).uniform(-size, size, 200)
    jitter[0] = 0
    shaken = audio.load(by_av(tmp_path / f"b.{kind}", WAVE, codec, jitter=jitter))
    assert shaken.notes == ()
    size = min(steady.samples.shape[1], shaken.samples.shape[1])
    assert abs(shaken.samples.shape[1] - steady.samples.shape[1]) <= 0.02 * RATE
    np.testing.assert_array_equal(steady.samples[:, :size], shaken.samples[:, :size])
