"""The frames that belong to given times, of files and of arrays."""

import json
import os
import pathlib
import struct
import tracemalloc

import av
import numpy as np
import pytest
from PIL import ExifTags, Image

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.video_prompts import make_clip
from sam_audio_jax.video.frames import latent_times, nearest, spread_indices, stream_at
from sam_audio_jax.video.muxing import mux
from sam_audio_jax.video.reading import video_notes
from tests.video.clips import (
    HEIGHT,
    WIDTH,
    frames_at,
    greys,
    indices,
    write,
    write_transport,
    write_with_sound,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FOLDER = pathlib.Path(os.environ.get("SAM_AUDIO_FIXTURES") or GOLDEN) / "model"
RNG = np.random.default_rng(0)


FRAMES = json.loads((FOLDER / "processor.json").read_text())


@pytest.mark.golden
@pytest.mark.parametrize("number", range(len(FRAMES["frames"])))
def test_the_references_choice_of_frames(number):
    case = FRAMES["frames"][number]
    if case["kind"] == "tensor":
        got = spread_indices(case["frames"], case["size"])
    else:
        times = latent_times(case["size"], FRAMES["hop"], FRAMES["sample_rate"])
        got = np.array(list(nearest(zip(case["pts"], range(10**9)), times)))  # noqa: B905
    np.testing.assert_array_equal(got, case["index"])


def test_the_nearest_frame_is_what_a_search_over_all_would_find():
    for _ in range(50):
        pts = np.sort(RNG.integers(0, 40, RNG.integers(1, 12)) / 8)
        times = np.sort(RNG.integers(-8, 60, 20) / 16).astype(np.float32)
        want = [int(np.abs(pts - time).argmin()) for time in times]
        assert list(nearest(zip(pts, range(len(pts)), strict=True), times)) == want


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_frames_of_a_file(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", greys(10))
    times = np.array([0.0, 0.04, 0.06, 0.31, 0.52, 0.9, 7.0])
    frames = frames_at(path, times)
    assert frames.shape == (len(times), HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert indices(frames) == [0, 0, 1, 3, 5, 9, 9]


def test_uneven_times_and_a_late_first_frame(tmp_path):
    path = write(tmp_path / "a.mkv", greys(4), pts=[300, 340, 700, 1500])
    # Without sound a player's clock begins with the first picture.
    frames = frames_at(path, np.array([0.0, 0.03, 0.21, 0.3, 0.7, 0.9, 9.0]))
    assert indices(frames) == [0, 1, 1, 2, 2, 3, 3]


def test_an_array_spans_the_whole_sound():
    frames, times = greys(10), latent_times(25, 1920, 48000)
    want = spread_indices(10, 25).tolist()
    assert indices(frames_at(frames, times)) == want
    channels_first = np.moveaxis(frames, 3, 1)
    np.testing.assert_array_equal(frames_at(channels_first, times), frames[want])


def test_frames_are_held_piece_by_piece(tmp_path):
    path = write(tmp_path / "a.mkv", greys(20, 240, 320), rate=20)
    times = np.linspace(0, 20, 400)
    tracemalloc.start()
    small = np.concatenate([piece[:, ::40, ::40].copy() for piece in stream_at(path, times)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert small.shape == (400, 6, 8, 3)
    assert peak < 100 * (240 * 320 * 3)
    lengths = [len(piece) for piece in stream_at(path, times, most=150)]
    assert lengths == [150, 150, 100]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_a_rotated_picture_is_shown_upright(tmp_path, quarters, mirrored):
    frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :8, :8] = 255
    path = write(tmp_path / "a.mp4", frames)
    stored = bytearray(path.read_bytes())
    # Of the track: quarter turns clockwise, then perhaps left and right exchanged.
    a, b = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    side = -1 if mirrored else 1
    numbers = [number << 16 for number in (side * a, b, 0, side * -b, a, 0, 0, 0)] + [1 << 30]
    matrix = stored.index(b"tkhd") + 44
    stored[matrix : matrix + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(stored)
    picture = frames_at(path, np.zeros(1))[0]
    shown = np.rot90(frames[0], -quarters)
    shown = np.fliplr(shown) if mirrored else shown
    assert picture.shape == shown.shape
    assert picture[shown > 0].min() > 200
    assert np.median(picture[shown == 0]) < 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_photo_is_shown_as_its_exif_entry_says(tmp_path, suffix, orientation):
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[:8, :8] = 255
    entry = Image.Exif()
    entry[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=entry)
    mirrored, quarters = ((0, 0), (1, 0), (0, 2), (1, 2), (1, 1), (0, 3), (1, 3), (0, 1))[
        orientation - 1
    ]
    shown = np.rot90(np.fliplr(stored) if mirrored else stored, quarters)
    picture = frames_at(tmp_path / f"a{suffix}", np.zeros(1))[0]
    assert picture.shape == shown.shape
    assert np.mean((picture > 127) != (shown > 127)) < 0.02


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mkv", "ffv1", "bgra"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
    ],
)
def test_what_is_transparent_is_black(tmp_path, name, codec, pixels):
    cut_out = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    cut_out[..., 3] = 0
    cut_out[4:20, 8:24, 3] = 255
    write_pictures(tmp_path / name, cut_out, codec, pixels)
    picture = frames_at(tmp_path / name, np.array([0.0, 0.2]))[1]
    np.testing.assert_allclose(picture[6:18, 10:22], 200, atol=8)
    picture[2:22, 6:26] = 0  # the edge is stored coarsely
    assert picture.max() < 8


def test_a_byte_of_avi_that_means_nothing_makes_nothing_transparent(tmp_path):
    pixels = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    pixels[..., 3] = 0
    write_pictures(tmp_path / "a.avi", pixels, "rawvideo", "bgra")
    np.testing.assert_array_equal(frames_at(tmp_path / "a.avi", np.zeros(1)), 200)


def write_pictures(path, picture, codec, pixels):
    """Writes a video of three equal pictures, which may have transparent parts."""
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("begin", [0.0, 100.0])
def test_pictures_on_several_clocks_are_refused(tmp_path, begin):
    parts = [write_transport(tmp_path / "part.ts", 15, first).read_bytes() for first in (0, begin)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    with pytest.raises(UserError, match="pictures on more than one clock"):
        frames_at(tmp_path / "a.ts", np.arange(30) / 10)


def test_a_clock_that_passes_its_end_in_a_recording_moves_no_picture(tmp_path):
    path = write_transport(tmp_path / "a.ts", 15, 2**33 / 90_000 - 1)
    assert audio.load(path).samples.shape[1] / 48_000 == pytest.approx(1.5, abs=0.05)
    assert indices(frames_at(path, np.arange(15) / 10 + 0.03)) == list(range(15))
    mux(path, audio.load(path).samples, 48_000, tmp_path / "b.mp4")
    assert indices(frames_at(tmp_path / "b.mp4", np.arange(15) / 10 + 0.03)) == list(range(15))


def test_videos_that_cannot_be_used_are_the_users_error(tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"no video at all")
    audio.write_wav(tmp_path / "sound.wav", np.zeros((1, 100), np.float32), 8000)
    write_with_sound(tmp_path / "none.mkv", greys(0), 0.0)
    for name, message in {
        "gone.mp4": "no video file at",
        "junk.mp4": "cannot be decoded as video",
        "sound.wav": "has no video stream",
        "none.mkv": "has no frames",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            frames_at(tmp_path / name, np.zeros(2))
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    for frames, message in (
        (np.zeros((0, 4, 4, 3), np.uint8), "item 3 has no frames"),
        (np.zeros((2, 4, 4, 3), np.float32), "not float32 of shape"),
        (np.zeros((4, 4, 3), np.uint8), r"must be a path or uint8 frames"),
    ):
        with pytest.raises(UserError, match=message):
            frames_at(frames, np.zeros(2), name="item 3")


def test_times_count_on_the_players_clock(tmp_path):
    late_sound = write_with_sound(tmp_path / "a.mkv", greys(12), 0.5)
    times = np.array([0.0, 0.1, 0.62, 2.0])
    assert indices(frames_at(late_sound, times)) == [0, 1, 6, 11]
    late_picture = write_with_sound(tmp_path / "b.mkv", greys(12), 0.2, picture_begin=0.5)
    assert indices(frames_at(late_picture, times)) == [0, 0, 3, 11]  # the clock begins at 0.2 s


def test_times_count_on_the_clock_of_the_chosen_track(tmp_path):
    path = write_with_sound(tmp_path / "a.mkv", greys(12), 0.0, 0.5, others=[0.5])
    times = np.array([0.0, 0.1, 0.62, 2.0])
    assert indices(frames_at(path, times)) == [0, 0, 1, 11]
    assert indices(frames_at(path, times, track=2)) == [0, 1, 6, 11]
    with pytest.raises(UserError, match="has no audio track 3"):
        frames_at(path, times, track=3)
    for sound, track in ((path, 2), (str(path), 2), (tmp_path / "b.wav", None)):
        clip = make_clip(str(path), sound=sound, track=2)
        assert clip.track == track
        assert make_clip(clip) is clip


def test_a_damaged_packet_costs_no_frames_before_it(tmp_path):
    path = write(tmp_path / "a.mkv", greys(12))
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    path.write_bytes(
        content.replace(packets[5][: len(packets[5]) // 2], bytes(len(packets[5]) // 2))
    )
    times = np.arange(12) / 10
    assert indices(frames_at(path, times))[:5] == [0, 1, 2, 3, 4]  # later ones depend on it


def test_of_several_videos_the_default_or_largest_is_shown(tmp_path):
    path = tmp_path / "a.mkv"
    for default, shown in ((None, 2), (1, 1), (3, 3)):
        with av.open(str(path), "w") as container:
            for number, (height, width) in enumerate(((24, 32), (48, 64), (12, 16)), 1):
                stream = container.add_stream("ffv1", rate=10)
                stream.height, stream.width, stream.pix_fmt = height, width, "bgr0"
                marks = av.stream.Disposition
                stream.disposition = marks.default if number == default else marks(0)
            for number, (height, width) in enumerate(((24, 32), (48, 64), (12, 16))):
                picture = av.VideoFrame.from_ndarray(
                    np.full((height, width, 3), 40 * number, np.uint8), format="rgb24"
                )
                stream = container.streams.video[number]
                container.mux([*stream.encode(picture), *stream.encode(None)])
        assert frames_at(path, np.zeros(1)).mean() == pytest.approx(40 * (shown - 1), abs=2)
        (note,) = video_notes(path, 0.1)
        assert f"has 3 videos (1: 32 x 24, 2: 64 x 48, 3: 16 x 12): {shown} is shown" in note
    assert video_notes(write(tmp_path / "b.mkv", greys(3)), 0.3) == ()
    os.mkfifo(tmp_path / "pipe.mkv")
    for name in ("gone.mkv", "pipe.mkv"):
        assert video_notes(tmp_path / name, 1.0) == ()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_pictures_that_end_long_before_the_sound_have_a_note(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", greys(12))
    assert video_notes(path, 2.1) == ()
    (note,) = video_notes(path, 7.5)
    assert note.endswith("end at 1.2 s, the sound at 7.5 s: the last picture stands for the rest")
