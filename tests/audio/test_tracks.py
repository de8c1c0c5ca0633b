"""Of several audio tracks the one that a player takes, or the one that is asked for."""

import av
import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.audio.timeline import Piece, with_channels
from sam_audio_jax.errors import UserError
from tests.audio.recordings import by_soundfile, lag, sound, with_tracks

WAVES = [sound(0.5), sound(0.5, hz=700), sound(0.5, channels=2, hz=990)]


@pytest.mark.parametrize("default", [1, 2, 3])
def test_the_default_track_is_taken_and_the_others_are_named(tmp_path, default):
    path = with_tracks(tmp_path / "a.mkv", WAVES, default)
    recording = audio.load(path)
    np.testing.assert_allclose(recording.samples, WAVES[default - 1], atol=1e-4)
    (note,) = recording.notes
    assert "has 3 audio tracks" in note
    assert "stereo" in note
    assert f"track {default} is used" in note
    for number, wave in enumerate(WAVES, 1):
        chosen = audio.load(path, track=number)
        assert chosen.notes == ()
        np.testing.assert_allclose(chosen.samples, wave, atol=1e-4)
        assert lag(chosen.samples, wave) == 0


def test_a_track_that_is_not_there_is_refused(tmp_path):
    path = with_tracks(tmp_path / "a.mkv", WAVES)
    with pytest.raises(UserError, match=r"no audio track 4; it has 1: .*flac mono.*, 3: .*stereo"):
        audio.load(path, track=4)
    wav = by_soundfile(tmp_path / "a.wav", WAVES[0])
    assert audio.load(wav, track=1).samples.shape == WAVES[0].shape
    with pytest.raises(UserError, match="no audio track 2; it has one"):
        audio.load(wav, track=2)


def test_eight_channels_in_planes_are_decoded(tmp_path):
    """PyAV's own conversion of such frames ends the process."""
    wave, layout = sound(0.5, channels=8, hz=200), "7.1(wide)"
    with av.open(str(tmp_path / "a.m4a"), "w") as out:
        stream = out.add_stream("alac", rate=48_000, layout=layout)
        planes = av.AudioResampler("s16p", layout, 48_000)
        for start in range(0, wave.shape[1], 4096):
            packed = np.ascontiguousarray(wave[:, start : start + 4096].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.pts = 48_000, start
            for part in planes.resample(frame):
                out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    np.testing.assert_allclose(audio.load(tmp_path / "a.m4a").samples, wave, atol=1e-4)
    part = audio.load_excerpt(tmp_path / "a.m4a", 6_000, 12_000, 48_000)
    np.testing.assert_allclose(part, wave[:, 6_000:18_000], atol=1e-4)


@pytest.mark.parametrize(("here", "channels"), [(8, 2), (2, 8)])
def test_layouts_of_eight_channels_are_mixed(here, channels):
    wave = np.zeros((here, 100), np.float32)
    wave[0] = 0.5  # front left
    mixed = with_channels(Piece(wave, 48_000), channels)
    assert mixed.shape == (channels, 100)
    assert mixed[0].min() > 0.1
    assert not mixed[1].any()
