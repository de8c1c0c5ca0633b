"""A header may state another length than there is: what is there counts, and a note says so."""

import os
import struct

import av
import numpy as np
import pytest
import soundfile
from av.codec.context import Flags

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from tests.audio.recordings import RATE, by_av, by_soundfile, lag, sound

WAVE = sound(1.5)


def patched_wav(path, riff, data, subtype="PCM_16"):
    """A WAV whose two sizes are replaced."""
    soundfile.write(path, WAVE.T, RATE, subtype=subtype)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", riff)
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", data)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("sizes", [(0, 0), (2**32 - 1, 2**32 - 1), (2**31, 2**31 - 40), (100, 64)])
def test_a_wav_with_a_wrong_size_is_read_to_its_end(tmp_path, subtype, sizes):
    soundfile.write(tmp_path / "right.wav", WAVE.T, RATE, subtype=subtype)
    right, _ = soundfile.read(tmp_path / "right.wav", dtype="float32")
    path = patched_wav(tmp_path / "wrong.wav", *sizes, subtype)
    wrong = audio.load(path)
    np.testing.assert_array_equal(wrong.samples[0, : len(right)], right)
    assert 0 <= wrong.samples.shape[1] - len(right) < 40  # chunks behind the samples
    assert "has 1.50 s of sound, its header says" in wrong.notes[0]
    assert audio.header_length(path) == (wrong.samples.shape[1], RATE)


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg", "opus"])
def test_what_is_there_of_a_truncated_file_is_read(tmp_path, kind):
    rng = np.random.default_rng(0)  # noise, of which encoders make several pages
    wave = (WAVE + rng.uniform(-0.3, 0.3, WAVE.shape)).astype(np.float32)
    path = by_soundfile(tmp_path / f"a.{kind}", wave)
    whole = audio.load(path)
    assert whole.notes == ()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    part = audio.load(path)
    assert 0.3 < part.samples.shape[1] / RATE < 1.2
    assert "of sound, its header says" in part.notes[-1] or "no mark of its end" in part.notes[-1]
    assert abs(lag(part.samples, whole.samples)) < 0.001
    length = audio.header_length(path)
    assert length is None or length[0] == part.samples.shape[1]


@pytest.mark.parametrize(("kind", "codec"), [("mkv", "libopus"), ("mka", "aac"), ("flv", "aac")])
def test_a_truncated_container_is_read_as_far_as_it_goes(tmp_path, kind, codec):
    path = by_av(tmp_path / f"a.{kind}", WAVE, codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    part = audio.load(path)
    assert 0.5 < part.samples.shape[1] / RATE < 1
    assert any("its header says 1.5" in note for note in part.notes)


@pytest.mark.parametrize("frames", [10, 5_000])
def test_a_count_of_frames_that_is_wrong_ends_no_mp3(tmp_path, frames):
    path = by_soundfile(tmp_path / "a.mp3", WAVE)
    content = bytearray(path.read_bytes())
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = struct.pack(">I", frames)
    path.write_bytes(content)
    recording = audio.load(path)
    assert recording.samples.shape[1] / RATE == pytest.approx(1.5, abs=0.05)
    assert "its header says" in recording.notes[-1]
    assert audio.header_length(path) is None


@pytest.mark.parametrize("header", [False, True])
def test_an_mp3_of_changing_bit_rate_without_a_count_is_read_to_its_end(tmp_path, header):
    """Its length does not follow from its first frames, which have the highest bit rate."""
    path, wave = tmp_path / "a.mp3", WAVE.copy()
    wave[:, : RATE // 4] = np.random.default_rng(0).uniform(-0.5, 0.5, RATE // 4)
    with av.open(str(path), "w", options={"write_xing": str(int(header))}) as out:
        stream = out.add_stream("libmp3lame", rate=RATE, layout="mono")
        stream.codec_context.flags |= Flags.qscale
        stream.codec_context.global_quality = 472
        frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    if header:
        content = bytearray(path.read_bytes())
        content[content.index(b"Xing") + 7] &= ~1  # it has no count
        path.write_bytes(content)
    recording = audio.load(path)
    assert recording.samples.shape[1] / RATE == pytest.approx(1.5, abs=0.05)
    assert recording.notes == ()


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_padding_that_an_mp3_states_is_no_wrong_length(tmp_path, rate):
    recording = audio.load(by_soundfile(tmp_path / "a.mp3", sound(1.5, rate), rate))
    assert recording.samples.shape[1] == 1.5 * rate
    assert recording.notes == ()


def test_pictures_that_outlast_the_sound_are_no_wrong_length(tmp_path):
    """ASF states the length of the file alone."""
    with av.open(str(tmp_path / "a.wmv"), "w", format="asf") as out:
        pictures = out.add_stream("wmv2", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        stream = out.add_stream("libmp3lame", rate=RATE, layout="mono")
        for _ in range(30):
            out.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(WAVE[:1]), "fltp", "mono")
        frame.sample_rate = RATE
        for one, last in ((stream, frame), (stream, None), (pictures, None)):
            out.mux(one.encode(last))
    recording = audio.load(tmp_path / "a.wmv")
    assert recording.samples.shape[1] < 2.5 * RATE
    assert recording.notes == ()


def test_an_alac_in_caf_keeps_its_last_packet(tmp_path):
    soundfile.write(tmp_path / "a.caf", WAVE.T, RATE, subtype="ALAC_16")
    np.testing.assert_allclose(audio.load(tmp_path / "a.caf").samples, WAVE, atol=1e-4)


def test_a_wav_whose_numbers_begin_with_their_highest_byte(tmp_path):
    soundfile.write(tmp_path / "a.wav", WAVE.T, RATE, endian="BIG")
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFX"
    np.testing.assert_allclose(audio.load(tmp_path / "a.wav").samples, WAVE, atol=1e-4)
    assert audio.header_length(tmp_path / "a.wav") == (WAVE.shape[1], RATE)


@pytest.mark.parametrize("bits", [0, 16, 24, 32])
def test_samples_of_a_wav_lie_as_far_apart_as_its_blocks_are_long(tmp_path, bits):
    whole = np.round(WAVE * 2.0**15).astype("<i4").T << 16
    soundfile.write(tmp_path / "a.wav", whole, RATE, subtype="PCM_32")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[34:36] = struct.pack("<H", bits)
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav").samples * 2.0**31, whole.T)
    assert audio.header_length(tmp_path / "a.wav") == (WAVE.shape[1], RATE)


def test_all_samples_of_a_wav_are_read_where_they_are_in_several_chunks(tmp_path):
    path = by_soundfile(tmp_path / "a.wav", WAVE)
    content = path.read_bytes()
    whole, half = audio.load(path).samples, RATE  # bytes of half a second
    first = content[:40] + struct.pack("<I", half) + content[44 : 44 + half]
    second = b"data" + struct.pack("<I", len(content) - 44 - half) + content[44 + half :]
    path.write_bytes(first + second)
    np.testing.assert_array_equal(audio.load(path).samples, whole)


def test_integers_of_all_sizes_are_exact(tmp_path):
    rng = np.random.default_rng(0)
    for bits, subtypes in {16: ["PCM_16"], 24: ["PCM_24"]}.items():
        whole = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000))
        for kind in ("wav", "flac", "aiff", "w64", "caf", "au"):
            path = tmp_path / f"a{bits}.{kind}"
            stored = (whole << 32 - bits).astype(np.int32).T
            soundfile.write(path, stored, RATE, subtype=subtypes[0])
            np.testing.assert_array_equal(audio.load(path).samples * 2.0 ** (bits - 1), whole)


def test_floats_beyond_full_scale_are_exact(tmp_path):
    wave = np.random.default_rng(0).normal(0, 3, (2, 5000)).astype(np.float32)
    for kind in ("wav", "aiff", "w64", "caf", "au"):
        soundfile.write(tmp_path / f"a.{kind}", wave.T, RATE, subtype="FLOAT")
        np.testing.assert_array_equal(audio.load(tmp_path / f"a.{kind}").samples, wave)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    for path, words in (
        (tmp_path / "pipe.wav", "a named pipe"),
        (tmp_path / "folder.wav", "a folder"),
        ("/dev/zero", "a device"),
        (tmp_path / "gone.wav", "no sound file at"),
        (f"{tmp_path}/a\0b.wav", r"a\\0b"),
        (tmp_path / ("long" * 100), "no sound file at"),
    ):
        for function in (audio.load, audio.header_length):
            with pytest.raises(UserError, match=words) as error:
                function(path)
            assert "\n" not in str(error.value)


def test_names_are_files_whatever_is_in_them(tmp_path):
    wave = sound(0.1)
    for name in ("2024-01-01T10:30:00.mka", "concat:a|b.mka", "%03d.mka", os.fsdecode(b"\xff.mka")):
        plain = by_av(tmp_path / "plain.mka", wave, "flac")
        os.rename(plain, tmp_path / name)
        assert audio.load(tmp_path / name).samples.shape == wave.shape
