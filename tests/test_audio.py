"""Sound files that come back as they were written, and the signal functions."""

import av
import numpy as np
import pytest
import soundfile

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError


def tone(hz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def test_a_wav_is_read_bit_for_bit_and_equal_samples_make_equal_files(tmp_path):
    samples = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    for name in ("a.wav", "b.wav"):
        audio.write_wav(tmp_path / "deep" / name, samples, 16000)
    sound = audio.load(tmp_path / "deep" / "a.wav")
    assert sound.sample_rate == 16000
    np.testing.assert_array_equal(sound.samples, samples)
    first, second = (path.read_bytes() for path in sorted((tmp_path / "deep").iterdir()))
    assert first == second


def test_a_file_that_soundfile_cannot_decode_is_decoded_by_av(tmp_path):
    path = tmp_path / "tone.mkv"
    wave = tone(440, 16000, 0.5)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((wave[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = audio.load(path)
    assert sound.sample_rate == 16000
    np.testing.assert_allclose(sound.samples[0], wave, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.wav", None, "no sound file"),
        ("text.wav", b"this is not sound", "cannot be decoded"),
        ("empty.wav", np.zeros((0, 1), np.float32), "no samples"),
        ("nan.wav", np.array([[0.0], [np.nan]], np.float32), "NaN"),
    ],
)
def test_files_that_cannot_be_used_are_the_callers_error(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match=message) as error:
        audio.load(path)
    assert name in str(error.value)


@pytest.mark.parametrize(("old", "new"), [(48000, 16000), (16000, 48000), (44100, 16000)])
def test_resampling_keeps_a_tone_and_rounds_the_length_up(old, new):
    out = audio.resample(np.stack([tone(440, old), -tone(440, old)]), old, new)
    assert out.shape == (2, new)
    middle = slice(new // 10, -new // 10)
    np.testing.assert_allclose(out[0, middle], tone(440, new)[middle], atol=2e-3)
    assert audio.resample(np.zeros(100, np.float32), 48000, 16000).shape == (34,)


@pytest.mark.parametrize("samples", [1, 100, 513, 4096])
@pytest.mark.parametrize(("window", "hop"), [(512, 128), (512, 256)])
def test_istft_inverts_stft(samples, window, hop):
    wave = np.random.default_rng(1).normal(size=(2, samples)).astype(np.float32)
    spectrum = audio.stft(wave, window, hop)
    assert spectrum.shape == (2, -(-samples // hop) + 1, window // 2 + 1)
    np.testing.assert_allclose(audio.istft(spectrum, window, hop, samples), wave, atol=1e-5)


def test_the_length_by_the_header_is_that_of_the_samples(tmp_path):
    audio.write_wav(tmp_path / "a.wav", np.zeros((2, 123)), 8000)
    assert audio.header_length(tmp_path / "a.wav") == (123, 8000)
    (tmp_path / "text.wav").write_text("no sound")
    assert audio.header_length(tmp_path / "text.wav") is None


def test_loudness_of_the_standards_tone():
    assert audio.loudness_lufs(tone(997, 48000, 2.0), 48000) == pytest.approx(-3.01, abs=0.05)
    assert audio.loudness_lufs(np.zeros(100, np.float32), 48000) == audio.LOUDNESS_FLOOR_LUFS


def test_another_phase_keeps_the_spectrum():
    wave = tone(440, 16000) + 0.5 * tone(1230, 16000)
    np.testing.assert_allclose(audio.rotate_phase(wave, np.pi, 16000), -wave, atol=1e-5)
    quarter = audio.rotate_phase(wave, np.pi / 2, 16000)
    middle = slice(1000, -1000)
    assert abs(np.corrcoef(quarter[middle], wave[middle])[0, 1]) < 0.01
    before, after = (np.abs(np.fft.rfft(w[middle])) for w in (wave, quarter))
    np.testing.assert_allclose(after, before, atol=0.02 * before.max())
