"""Of several audio tracks the one that a player takes, or the one that is asked for."""

import numpy as np
import pytest

from sam_audio_jax import audio
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
