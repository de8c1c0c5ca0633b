"""Frames by their times, masks of every kind, and a new sound, on small videos made here."""

import fractions
import json
import os
import pathlib
import struct
import tracemalloc

import av
import numpy as np
import pytest

from sam_audio_jax import audio, video
from sam_audio_jax.errors import UserError

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("SAM_AUDIO_FIXTURES") or HERE / "golden") / "model"
HEIGHT, WIDTH = 24, 32
ENCODERS = {".mp4": "libx264", ".webm": "libvpx-vp9", ".mkv": "ffv1"}
RNG = np.random.default_rng(0)


def greys(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frames that are told apart by their brightness, which rises by 8 each, from 16."""
    levels = (16 + 8 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3))


def write(path: pathlib.Path, frames: np.ndarray, rate: int = 10, pts=None) -> pathlib.Path:
    """`pts` counts in 1/1000 s; without it frames come at `rate`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(ENCODERS[path.suffix], rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "yuv420p"
        if pts is not None:
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if pts is not None:
                picture.pts, picture.time_base = pts[number], stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def indices(frames: np.ndarray) -> list[int]:
    """Which of `greys` these frames are."""
    return np.rint((frames.mean(axis=(1, 2, 3)) - 16) / 8).astype(int).tolist()


def disc(count: int) -> np.ndarray:
    """A mask that moves by a pixel a frame."""
    row, column = np.ogrid[:HEIGHT, :WIDTH]
    return np.stack([(row - 10) ** 2 + (column - 8 - i) ** 2 < 30 for i in range(count)])


def picture_of(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1)


FRAMES = json.loads((FOLDER / "processor.json").read_text())


@pytest.mark.golden
@pytest.mark.parametrize("number", range(len(FRAMES["frames"])))
def test_the_references_choice_of_frames(number):
    case = FRAMES["frames"][number]
    if case["kind"] == "tensor":
        got = video.spread(case["frames"], case["size"])
    else:
        times = video.latent_times(case["size"], FRAMES["hop"], FRAMES["sample_rate"])
        got = np.array(list(video.nearest(zip(case["pts"], range(10**9)), times)))  # noqa: B905
    np.testing.assert_array_equal(got, case["index"])


def test_the_nearest_frame_is_what_a_search_over_all_would_find():
    for _ in range(50):
        pts = np.sort(RNG.integers(0, 40, RNG.integers(1, 12)) / 8)
        times = np.sort(RNG.integers(-8, 60, 20) / 16).astype(np.float32)
        want = [int(np.abs(pts - time).argmin()) for time in times]
        assert list(video.nearest(zip(pts, range(len(pts)), strict=True), times)) == want


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_frames_of_a_file(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", greys(10))
    times = np.array([0.0, 0.04, 0.06, 0.31, 0.52, 0.9, 7.0])
    frames = video.frames_at(path, times)
    assert frames.shape == (len(times), HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8
    assert indices(frames) == [0, 0, 1, 3, 5, 9, 9]


def test_uneven_times_and_a_late_first_frame(tmp_path):
    path = write(tmp_path / "a.mkv", greys(4), pts=[300, 340, 700, 1500])
    assert indices(video.frames_at(path, np.array([0.0, 0.33, 0.51, 0.6, 1.0, 1.2, 9.0]))) == [
        *(0, 1, 1, 2, 2, 3, 3)
    ]


def test_an_array_spans_the_whole_sound():
    frames, times = greys(10), video.latent_times(25, 1920, 48000)
    want = video.spread(10, 25).tolist()
    assert indices(video.frames_at(frames, times)) == want
    channels_first = np.moveaxis(frames, 3, 1)
    np.testing.assert_array_equal(video.frames_at(channels_first, times), frames[want])


def test_frames_are_held_piece_by_piece(tmp_path):
    path = write(tmp_path / "a.mkv", greys(20, 240, 320), rate=20)
    times = np.linspace(0, 20, 400)
    size = 240 * 320 * 3

    def small(frames):
        return frames[:, ::40, ::40].copy()

    tracemalloc.start()
    frames = video.frames_at(path, times, change=small)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.shape == (400, 6, 8, 3)
    assert peak < 100 * size
    lengths = [len(piece) for piece in video.stream_at(path, times, most=150)]
    assert lengths == [150, 150, 100]


def test_a_picture_on_its_side_is_turned(tmp_path):
    frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :8, :8] = 255
    path = write(tmp_path / "a.mp4", frames)
    stored = bytearray(path.read_bytes())
    matrix = stored.index(b"tkhd") + 44  # of the track: a quarter turn clockwise
    stored[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(stored)
    seen = video.frames_at(path, np.zeros(1))[0]
    assert seen.shape == (WIDTH, HEIGHT, 3)
    assert seen[:8, -8:].min() > 200
    assert seen[:, :8].max() < 60


@pytest.fixture
def masks(tmp_path):
    """The same moving disc in every form that a mask may have."""
    mask = disc(6)
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(mask):
        image = av.VideoFrame.from_ndarray(picture_of(frame), format="rgb24")
        image.save(str(tmp_path / "pictures" / f"{number:02}.png"))
    (tmp_path / "pictures" / "notes.txt").write_text("not a picture")
    np.savez(tmp_path / "named.npz", mask=mask, other=np.zeros(3))
    np.savez(tmp_path / "only.npz", mask.astype(np.uint8) * 255)
    return mask, {
        "video": write(tmp_path / "mask.mp4", picture_of(mask)),
        "folder": tmp_path / "pictures",
        "named": str(tmp_path / "named.npz"),
        "only": tmp_path / "only.npz",
        "array": mask,
        "uint8": mask.astype(np.uint8),
        "upstream": mask[:, None],
    }


@pytest.mark.parametrize("form", ["video", "folder", "named", "only", "array", "uint8", "upstream"])
def test_every_form_of_a_mask(masks, form):
    mask, forms = masks
    got = video.read_mask(forms[form], *mask.shape)
    assert got.dtype == bool
    assert (got != mask).mean() < (0.02 if form == "video" else 1e-9)  # lossy at its edges


def test_regions(tmp_path):
    regions = [[2, 3, 10, 5], None, [[0, 0, 1, 1], [31, 23, 0]], [[4.5, 4.5, 2]], []]
    mask = video.read_mask(regions, 5, HEIGHT, WIDTH)
    assert mask[0].sum() == 8 * 2
    assert mask[0, 3:5, 2:10].all()
    assert not mask[1].any()
    assert not mask[4].any()
    assert np.argwhere(mask[2]).tolist() == [[0, 0], [23, 31]]
    assert mask[3].sum() == 12
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(regions))
    np.testing.assert_array_equal(video.read_mask(path, 5, HEIGHT, WIDTH), mask)


def test_the_object_stays_and_the_references_helper_does_the_reverse():
    frames = RNG.integers(1, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = disc(4)
    kept, rest = (video.apply_mask(frames, mask, keep) for keep in ("object", "background"))
    np.testing.assert_array_equal(kept[mask], frames[mask])
    assert not kept[~mask].any()
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept + rest, frames)
    theirs = video.mask_videos([np.moveaxis(frames, 3, 1)], [mask[:, None]])
    np.testing.assert_array_equal(np.moveaxis(theirs[0], 1, 3), rest)


@pytest.mark.parametrize("form", ["video", "folder", "array"])
@pytest.mark.parametrize("keep", ["object", "background"])
def test_masked_frames_of_a_file_are_the_chosen_masked_frames(masks, tmp_path, form, keep):
    mask, forms = masks
    frames = RNG.integers(1, 256, (6, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mkv", frames)
    times = np.array([0.0, 0.11, 0.12, 0.4, 0.5])
    got = video.frames_at(path, times, mask=forms[form], keep=keep)
    own = video.read_mask(forms[form], *mask.shape)
    np.testing.assert_array_equal(got, video.apply_mask(frames, own, keep)[[0, 1, 1, 4, 5]])
    whole = video.frames_at(frames, np.arange(6.0), mask=forms[form], keep=keep)
    np.testing.assert_array_equal(whole, video.apply_mask(frames, own, keep))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (disc(5), "mask of item 3 has 5 frames"),
        (disc(7), "mask of item 3 has more than the video's 6 frames"),
        (disc(6)[:, :-1], "mask of item 3 is 32 x 23 pixels, the video 32 x 24"),
        (np.zeros((6, HEIGHT, WIDTH), bool), "mask of item 3 marks no object"),
        ([None] * 6, "mask of item 3 marks no object"),
        (np.zeros((6, HEIGHT, WIDTH), np.float32), "mask of item 3 must be bool or uint8"),
        (disc(6)[0], "mask of item 3 must be bool or uint8"),
        ("gone.npz", "item 3: no mask at gone.npz"),
        ([[1, 2, 3]] * 5 + [[4, 4, 2, 8]], r"frame 5 of item 3: \[4, 4, 2, 8\] must be a box"),
        ([[1, 2, -3]] * 6, r"frame 0 of item 3: \[1, 2, -3\] must be a box"),
        ([["a"]] * 6, r"frame 0 of item 3"),
        (7, "mask of item 3 must be a path, an array or a list"),
    ],
)
def test_masks_that_do_not_fit_are_the_users_error(mask, said):
    with pytest.raises(UserError, match=said) as error:
        video.frames_at(greys(6), np.zeros(3), mask=mask, name="item 3")
    assert "\n" not in str(error.value)


def test_whole_masks_are_checked_alike():
    with pytest.raises(UserError, match="mask of item 3 has 5 frames, the video 6"):
        video.read_mask(disc(5), 6, HEIGHT, WIDTH, name="item 3")
    with pytest.raises(UserError, match="mask of the video is 32 x 24 pixels, the video 32 x 25"):
        video.read_mask(disc(5), 5, HEIGHT + 1, WIDTH)
    with pytest.raises(UserError, match="mask of item 3 marks no object"):
        video.apply_mask(greys(2), np.zeros((2, HEIGHT, WIDTH), bool), name="item 3")
    with pytest.raises(UserError, match="has 3 frames, the video 2"):
        video.apply_mask(greys(2), disc(3))
    with pytest.raises(UserError, match="is 32 x 24 pixels, the video 30 x 24"):
        video.apply_mask(greys(2, HEIGHT, 30), disc(2))
    with pytest.raises(UserError, match="keep='both' is unknown; allowed: object, background"):
        list(video.stream_at(greys(2), np.zeros(1), keep="both"))


def test_mask_files_that_cannot_be_read(tmp_path):
    contents = {
        "junk.npz": (b"junk", "is no .npz file"),
        "junk.json": (b"{", "cannot be read as JSON"),
        "junk.mp4": (b"junk", "mask of a cannot be decoded as video"),
    }
    for file, (content, said) in contents.items():
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match=said):
            video.read_mask(tmp_path / file, 2, HEIGHT, WIDTH, name="a")
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(UserError, match=r"must hold an array 'mask', not \['a', 'b'\]"):
        video.read_mask(tmp_path / "two.npz", 2, HEIGHT, WIDTH)
    np.savez(tmp_path / "objects.npz", mask=np.array([{}], object))
    with pytest.raises(UserError, match=r"is no \.npz file of numbers"):
        video.read_mask(tmp_path / "objects.npz", 2, HEIGHT, WIDTH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no pictures"):
        video.read_mask(tmp_path / "empty", 2, HEIGHT, WIDTH)


def test_videos_that_cannot_be_used_are_the_users_error(tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"no video at all")
    audio.write_wav(tmp_path / "sound.wav", np.zeros((1, 100), np.float32), 8000)
    write_with_sound(tmp_path / "none.mkv", greys(0), 0.0)
    for name, said in {
        "gone.mp4": "no video file at",
        "junk.mp4": "cannot be decoded as video",
        "sound.wav": "has no video stream",
        "none.mkv": "has no frames",
    }.items():
        with pytest.raises(UserError, match=said) as error:
            video.frames_at(tmp_path / name, np.zeros(2))
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    for frames, said in (
        (np.zeros((0, 4, 4, 3), np.uint8), "item 3 has no frames"),
        (np.zeros((2, 4, 4, 3), np.float32), "not float32 of shape"),
        (np.zeros((4, 4, 3), np.uint8), r"must be a path or uint8 frames"),
    ):
        with pytest.raises(UserError, match=said):
            video.frames_at(frames, np.zeros(2), name="item 3")


def write_with_sound(path: pathlib.Path, frames: np.ndarray, begin: float) -> pathlib.Path:
    """Ten frames a second, and a tenth of a second of silence that begins at `begin` seconds."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=10)
        pictures.height, pictures.width, pictures.pix_fmt = HEIGHT, WIDTH, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(pictures.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 8000, int(8000 * begin)
        container.mux(sound.encode(silence))
    return path


def test_times_count_from_the_beginning_of_the_sound(tmp_path):
    path = write_with_sound(tmp_path / "a.mkv", greys(12), 0.5)
    assert indices(video.frames_at(path, np.array([0.0, 0.1, 0.62, 2.0]))) == [5, 6, 11, 11]
    video.mux(path, tone(0.3, 48000, 1), 48000, tmp_path / "b.mkv")
    assert indices(video.frames_at(tmp_path / "b.mkv", np.array([0.0, 0.1]))) == [5, 6]


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
    video.mux(path, tone(1.2, rate, channels), rate, out)
    assert [file.name for file in out.parent.iterdir()] == [out.name]
    assert [stored for stored, _ in packets(out)] == [stored for stored, _ in packets(path)]
    times = [[time for _, time in packets(file)] for file in (out, path)]
    np.testing.assert_allclose(*times, atol=2e-3)
    heard = audio.load(out)
    assert len(heard.samples) == channels
    want = tone(1.2, heard.sample_rate, channels)
    middle = slice(heard.sample_rate // 10, heard.sample_rate)
    np.testing.assert_allclose(heard.samples[:, middle], want[:, middle], atol=0.02)
    again = tmp_path / f"c{suffix}"
    video.mux(out, tone(1.2, rate, channels), rate, again)  # the old sound is left out
    with av.open(str(again)) as container:
        assert len(container.streams) == 2


def test_nothing_is_left_of_a_sound_that_cannot_be_added(tmp_path):
    path, wave = write(tmp_path / "a.mp4", greys(3)), tone(0.1, 48000, 1)
    before = {file.name for file in tmp_path.iterdir()}
    for source, samples, name, said in (
        (path, wave, "b.webm", "cannot be copied into"),  # WebM holds no H.264
        (path, wave, "b.avi", r"must end in one of \.mp4"),
        (path, np.zeros((3, 100), np.float32), "b.mp4", "1 or 2 channels"),
        (path, np.zeros((1, 0), np.float32), "b.mp4", "1 or 2 channels"),
        (tmp_path / "gone.mp4", wave, "b.mp4", "no video file at"),
    ):
        with pytest.raises(UserError, match=said):
            video.mux(source, samples, 48000, tmp_path / name)
    assert {file.name for file in tmp_path.iterdir()} == before
