"""Parts of sound files equal the same parts of the whole files."""

import numpy as np
import pytest
import soundfile

from sam_audio_jax import audio
from sam_audio_jax.errors import UnusableError

RATE = 12_000


def noise(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    """Low-passed noise, which every codec keeps."""
    time = np.arange(int(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * f * time + f) * np.sin(0.9 * time * f / 200) for f in (220, 700)]
    return 0.3 * np.stack([tones[0], tones[0] + tones[1]][:channels], -1)


@pytest.mark.parametrize(
    ("name", "rate", "to_rate", "largest_error"),
    [
        ("a.wav", RATE, RATE, 0),
        ("a.flac", RATE, RATE, 0),
        ("a.flac", 44_100, RATE, 1e-4),
        ("a.wav", 1_000, RATE, 1e-3),
        ("a.wav", 11_111, RATE, 1e-4),
        ("a.ogg", RATE, RATE, 1e-3),
    ],
)
def test_a_part_is_that_of_the_whole(tmp_path, name, rate, to_rate, largest_error):
    path = tmp_path / name
    soundfile.write(path, noise(6.0, rate), rate)
    whole = audio.load(path)
    resampled = audio.resample(whole.samples, whole.sample_rate, to_rate)
    for start in (0, 1, 17_317, 6 * to_rate - 500):
        part = audio.load_excerpt(path, start, 9_000, to_rate)
        wanted = resampled[:, start : start + 9_000]
        assert part.shape == wanted.shape
        np.testing.assert_allclose(part, wanted, atol=largest_error)
        encoded = audio.Encoded(path.read_bytes(), name)
        np.testing.assert_array_equal(audio.load_excerpt(encoded, start, 9_000, to_rate), part)
    raw = audio.Raw(whole.samples, whole.sample_rate, "raw")
    part = audio.load_excerpt(raw, 5_000, 700, to_rate)
    np.testing.assert_allclose(part, resampled[:, 5_000:5_700], atol=max(largest_error, 1e-6))
    assert audio.sound_seconds(path) == pytest.approx(6.0, abs=1e-3)


@pytest.mark.parametrize("track", [None, 2])
def test_a_part_of_a_track_that_soundfile_does_not_know(tmp_path, track):
    import av

    path, rate = tmp_path / "two tracks.mov", 48_000
    waves = [noise(4.0, rate, 1).astype(np.float32).T, 0.5 * noise(4.0, rate).astype(np.float32).T]
    with av.open(str(path), "w") as container:
        streams = [
            container.add_stream("pcm_s16le", rate=rate, layout=layout)
            for layout in ("mono", "stereo")
        ]
        for start in range(0, 4 * rate, 1024):
            for stream, wave in zip(streams, waves, strict=True):
                block = (32_767 * wave[:, start : start + 1024]).astype(np.int16).T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(block, "s16", stream.layout.name)
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    whole = audio.load(path, track)
    for start in (0, 60_000, 150_001):
        part = audio.load_excerpt(path, start, 5_000, rate, track)
        np.testing.assert_array_equal(part, whole.samples[:, start : start + 5_000])
    assert audio.sound_seconds(path, track) == pytest.approx(4.0, abs=0.01)


def test_time_stamps_of_whole_milliseconds_move_no_frame(tmp_path):
    import av

    path, rate = tmp_path / "aac.mkv", 44_100
    wave = noise(5.0, rate, 1).astype(np.float32).T
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(wave[:, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    whole = audio.load(path).samples[0]
    for start in (0, 66_000, 150_001):
        part = audio.load_excerpt(path, start, 44_100, rate)[0]
        # The first frame's own time is rounded, too: the part may lie half a millisecond beside.
        errors = [
            np.abs(part[100:-100] - whole[start + 100 + lag :][: len(part) - 200]).max()
            for lag in range(-45, 46)
        ]
        assert min(errors) < 1e-5


def test_what_is_not_there_is_refused_under_its_reason(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1.0, RATE), RATE)
    (tmp_path / "text.wav").write_text("no sound at all")
    for name, start, track, reason in (
        ("a.wav", 2 * RATE, None, "no samples"),
        ("text.wav", 0, None, "cannot be decoded"),
        ("gone.wav", 0, None, "no file"),
    ):
        with pytest.raises(UnusableError) as error:
            audio.load_excerpt(tmp_path / name, start, 100, RATE, track)
        assert error.value.reason == reason
        assert name in str(error.value)


def test_an_excerpt_of_a_low_rate_mp3_begins_with_its_sound(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(4.0, 48_000, 1), 48_000, format="MP3", compression_level=0.99)
    whole = audio.load(path).samples
    part = audio.load_excerpt(path, 96_000, 38_400, 48_000)
    np.testing.assert_allclose(part, whole[:, 96_000:134_400], atol=1e-4)
