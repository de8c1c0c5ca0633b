"""A new sound under the pictures of a video, which stay as they are."""

import struct

import av
import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.video.muxing import mux
from tests.video.clips import HEIGHT, WIDTH, frames_at, greys, indices, write, write_with_sound


def packets(path):
    with av.open(str(path)) as container:
        return [
            (bytes(packet), float(packet.pts * packet.time_base))
            for packet in container.demux(video=0)
            if packet.dts is not None
        ]


def tone(seconds: float, rate: int, channels: int) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.stack([wave] * channels).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [(".mp4", 48000, 1), (".mp4", 7350, 2), (".webm", 16000, 2), (".webm", 48000, 1)],
)
def test_a_new_sound_under_the_same_pictures(tmp_path, suffix, rate, channels):
    path = write(tmp_path / f"a{suffix}", greys(12))
    out = tmp_path / "deep" / f"b{suffix}"
    mux(path, tone(1.2, rate, channels), rate, out)
    assert [file.name for file in out.parent.iterdir()] == [out.name]
    assert [stored for stored, _ in packets(out)] == [stored for stored, _ in packets(path)]
    times = [[time for _, time in packets(file)] for file in (out, path)]
    np.testing.assert_allclose(*times, atol=2e-3)
    sound = audio.load(out)
    assert len(sound.samples) == channels
    want = tone(1.2, sound.sample_rate, channels)
    middle = slice(sound.sample_rate // 10, sound.sample_rate)
    np.testing.assert_allclose(sound.samples[:, middle], want[:, middle], atol=0.02)
    again = tmp_path / f"c{suffix}"
    mux(out, tone(1.2, rate, channels), rate, again)  # the old sound is left out
    with av.open(str(again)) as container:
        assert len(container.streams) == 2


def test_the_sound_begins_with_the_players_clock(tmp_path):
    late_sound = write_with_sound(tmp_path / "a.mkv", greys(12), 0.5)
    late_picture = write_with_sound(tmp_path / "b.mkv", greys(12), 0.2, picture_begin=0.5)
    for path, first in ((late_sound, 0.0), (late_picture, 0.2)):
        sound = audio.load(path)
        wave = np.zeros_like(sound.samples)
        wave[:, 160:] = tone(1.0, sound.sample_rate, 1)[:, : wave.shape[1] - 160]
        mux(path, wave, sound.sample_rate, tmp_path / "out.mkv")
        with av.open(str(tmp_path / "out.mkv")) as container:
            frame = next(container.decode(audio=0))
            assert frame.time == pytest.approx(first, abs=0.01)


def test_the_sound_begins_with_the_clock_of_its_track_or_of_a_silent_picture(tmp_path):
    tracks = write_with_sound(tmp_path / "a.mkv", greys(12), 0.0, 0.5, others=[0.5])
    silent = write(tmp_path / "b.mkv", greys(12), pts=[500 + 100 * i for i in range(12)])
    for path, track, first in ((tracks, 1, 0.0), (tracks, 2, 0.5), (silent, None, 0.5)):
        mux(path, tone(0.5, 48000, 1), 48000, tmp_path / "out.mkv", track)
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert next(container.decode(audio=0)).time == pytest.approx(first, abs=0.01)


def test_pictures_of_matroska_whose_first_decoding_times_are_not_known_are_kept(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for picture in greys(12):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).dts is None
    for suffix in (".mkv", ".mp4"):
        mux(path, tone(1.2, 48000, 1), 48000, out := tmp_path / f"out{suffix}")
        assert indices(frames_at(out, np.arange(12) / 10)) == list(range(12))


def test_pictures_that_an_edit_list_cuts_off_stay_away(tmp_path):
    path = write(tmp_path / "a.mp4", greys(12))
    stored = bytearray(path.read_bytes())
    duration = stored.index(b"elst") + 12  # of the only entry, in ms
    stored[duration : duration + 4] = struct.pack(">I", 500)
    path.write_bytes(stored)
    assert indices(frames_at(path, np.arange(8) / 10)) == [0, 1, 2, 3, 4, 4, 4, 4]
    mux(path, tone(0.5, 48000, 1), 48000, tmp_path / "out.mp4")
    shown = indices(frames_at(tmp_path / "out.mp4", np.arange(12) / 10))
    assert shown[:5] == [0, 1, 2, 3, 4]
    assert len(packets(tmp_path / "out.mp4")) <= 7  # two that the last ones are predicted from


@pytest.mark.parametrize(
    ("codec", "pixels", "tag"),
    [("libx265", "yuv420p", "hvc1"), ("prores_ks", "yuva444p10le", "ap4h")],
)
def test_a_codec_keeps_the_name_by_which_players_know_it(tmp_path, codec, pixels, tag):
    path, out = tmp_path / "a.mov", tmp_path / "b.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 64, pixels
        stream.codec_context.codec_tag = tag
        for picture in greys(3, 64, 64):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    mux(path, tone(0.3, 48000, 1), 48000, out)
    for name in (path, out):
        with av.open(str(name)) as container:
            assert container.streams.video[0].codec_context.codec_tag == tag


def test_pictures_without_times_are_refused(tmp_path):
    path = tmp_path / "a.h264"
    write(tmp_path / "a.mp4", greys(3))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w") as out:
        copied = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    with pytest.raises(UserError, match=r"a\.h264 stores no times of its pictures"):
        mux(path, tone(0.3, 48000, 1), 48000, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_nothing_is_left_of_a_sound_that_cannot_be_added(tmp_path):
    path, wave = write(tmp_path / "a.mp4", greys(3)), tone(0.1, 48000, 1)
    before = {file.name for file in tmp_path.iterdir()}
    for source, samples, name, message in (
        (path, wave, "b.webm", "cannot be copied into"),  # WebM holds no H.264
        (path, wave, "b.avi", r"must end in one of \.mp4"),
        (path, np.zeros((3, 100), np.float32), "b.mp4", "1 or 2 channels"),
        (path, np.zeros((1, 0), np.float32), "b.mp4", "1 or 2 channels"),
        (tmp_path / "gone.mp4", wave, "b.mp4", "no video file at"),
    ):
        with pytest.raises(UserError, match=message):
            mux(source, samples, 48000, tmp_path / name)
    assert {file.name for file in tmp_path.iterdir()} == before
