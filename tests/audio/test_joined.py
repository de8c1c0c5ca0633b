"""Files of several recordings, one after another, are read to their end."""

import numpy as np
import pytest

from sam_audio_jax import audio
from tests.audio.recordings import RATE, by_av, by_soundfile, joined, lag, level, sound

FIRST, SECOND = sound(0.9), sound(0.7, hz=700)
BOTH = np.concatenate([FIRST, SECOND], axis=1)


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "wav"])
def test_joined_files_give_the_samples_of_both(tmp_path, kind):
    parts = [by_soundfile(tmp_path / f"{n}.{kind}", w) for n, w in enumerate((FIRST, SECOND))]
    both = audio.load(joined(tmp_path / f"joined.{kind}", *parts))
    alone = np.concatenate([audio.load(part).samples for part in parts], axis=1)
    np.testing.assert_array_equal(both.samples, alone)
    assert both.samples.shape == BOTH.shape
    assert "is 2 recordings" in both.notes[0]
    three = audio.load(joined(tmp_path / f"three.{kind}", *parts, parts[0]))
    assert three.samples.shape[1] == BOTH.shape[1] + FIRST.shape[1]


@pytest.mark.parametrize("kind", ["mp3", "aac", "ac3"])
def test_joined_packets_are_all_decoded(tmp_path, kind):
    codec = {"mp3": "libmp3lame"}.get(kind, kind)
    parts = [by_av(tmp_path / f"{n}.{kind}", w, codec) for n, w in enumerate((FIRST, SECOND))]
    both = audio.load(joined(tmp_path / f"joined.{kind}", *parts)).samples
    assert both.shape[1] / RATE == pytest.approx(1.6, abs=0.1)
    assert abs(lag(both[:, : FIRST.shape[1]], FIRST)) < 0.03
    assert abs(lag(both[:, FIRST.shape[1] :], SECOND)) < 0.1
    assert audio.header_length(tmp_path / f"joined.{kind}") is None


@pytest.mark.parametrize("kind", ["flac", "ogg", "wav", "mp3", "aac"])
@pytest.mark.parametrize(
    "forms",
    [
        ((48_000, 1), (44_100, 2)),
        ((22_050, 2), (32_000, 1)),
        ((48_000, 6), (48_000, 2)),
        ((48_000, 2), (48_000, 6)),
    ],
)
def test_another_rate_or_layout_midway_is_brought_to_the_first(tmp_path, kind, forms):
    parts, waves = [], []
    if kind == "mp3" and max(channels for _, channels in forms) > 2:
        pytest.skip("MP3 has at most two channels")
    for number, (rate, channels) in enumerate(forms):
        path, wave = tmp_path / f"{number}.{kind}", sound(0.8, rate, channels)
        parts.append(
            by_av(path, wave, "aac", rate) if kind == "aac" else by_soundfile(path, wave, rate)
        )
        waves.append(wave)
    both = audio.load(joined(tmp_path / f"joined.{kind}", *parts))
    (rate, channels), _ = forms
    assert (both.sample_rate, len(both.samples)) == (rate, channels)
    assert both.samples.shape[1] / rate == pytest.approx(1.6, abs=0.15)
    assert any(f"brought to {rate} Hz" in note for note in both.notes)
    for start, wave in ((0.1, waves[0]), (0.9, waves[1])):  # the first channel is in its place
        assert level(both.samples, start, start + 0.5, rate) > 0.5 * level(
            wave, 0.1, 0.6, forms[0][0]
        )


def test_channels_of_opposite_sign_after_one_channel_are_not_lost(tmp_path):
    parts = [
        by_soundfile(tmp_path / f"{n}.flac", wave)
        for n, wave in enumerate((FIRST, np.concatenate([SECOND, -SECOND])))
    ]
    both = audio.load(joined(tmp_path / "joined.flac", *parts))
    assert both.samples.shape == BOTH.shape
    np.testing.assert_allclose(np.abs(both.samples), np.abs(BOTH), atol=1e-3)


def test_bytes_behind_a_recording_are_no_other_one(tmp_path):
    for kind, tail in (
        ("wav", b"TAG" + bytes(125)),
        ("wav", b"id3 \x04\x00\x00\x00abcd"),
        ("wav", bytes(5000)),
        ("mp3", b"TAG" + bytes(125)),
        ("mp3", bytes(5000)),
    ):
        path = by_soundfile(tmp_path / f"a.{kind}", FIRST)
        plain = audio.load(path)
        path.write_bytes(path.read_bytes() + tail)
        tagged = audio.load(path)
        assert tagged.notes == ()
        np.testing.assert_array_equal(tagged.samples, plain.samples)
