"""Masks in every form, what they leave visible, and masks that do not fit."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from sam_audio_jax.errors import UserError
from sam_audio_jax.video import masks as video_masks
from sam_audio_jax.video.frames import stream_at
from sam_audio_jax.video.reading import Excerpt
from tests.video.clips import HEIGHT, WIDTH, disc, frames_at, greys, indices, picture_of, write

RNG = np.random.default_rng(0)


def read(source, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """All masks of a source, `[frames, height, width]`."""
    return np.stack([draw(height, width) for draw in video_masks.read_masks(source, "a")])


def masked(frames: np.ndarray, mask: np.ndarray, keep: str) -> np.ndarray:
    pairs = zip(frames, mask, strict=True)
    return np.stack([video_masks.apply_mask(frame, one, keep) for frame, one in pairs])


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
        "reference": mask[:, None],
    }


FORMS = ("video", "folder", "named", "only", "array", "uint8", "reference")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask(masks, form):
    mask, forms = masks
    got = read(forms[form])
    assert got.dtype == bool
    assert (got != mask).mean() < (0.02 if form == "video" else 1e-9)  # lossy at its edges


def test_regions(tmp_path):
    regions = [[2, 3, 10, 5], None, [[0, 0, 1, 1], [31, 23, 0]], [[4.5, 4.5, 2]], []]
    mask = read(regions)
    assert mask[0].sum() == 8 * 2
    assert mask[0, 3:5, 2:10].all()
    assert not mask[1].any()
    assert not mask[4].any()
    assert np.argwhere(mask[2]).tolist() == [[0, 0], [23, 31]]
    assert mask[3].sum() == 12
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(regions))
    np.testing.assert_array_equal(read(path), mask)


def test_the_object_stays_and_the_references_helper_does_the_reverse():
    frames = RNG.integers(1, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = disc(4)
    kept, rest = (masked(frames, mask, keep) for keep in ("object", "background"))
    np.testing.assert_array_equal(kept[mask], frames[mask])
    assert not kept[~mask].any()
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept + rest, frames)
    theirs = video_masks.mask_videos([np.moveaxis(frames, 3, 1)], [mask[:, None]])
    np.testing.assert_array_equal(np.moveaxis(theirs[0], 1, 3), rest)


@pytest.mark.parametrize("form", ["video", "folder", "array"])
@pytest.mark.parametrize("keep", ["object", "background"])
def test_masked_frames_of_a_file_are_the_chosen_masked_frames(masks, tmp_path, form, keep):
    _, forms = masks
    frames = RNG.integers(1, 256, (6, HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mkv", frames)
    times = np.array([0.0, 0.11, 0.12, 0.4, 0.5])
    got = frames_at(path, times, mask=forms[form], keep=keep)
    own = read(forms[form])
    np.testing.assert_array_equal(got, masked(frames, own, keep)[[0, 1, 1, 4, 5]])
    whole = frames_at(frames, np.arange(6.0), mask=forms[form], keep=keep)
    np.testing.assert_array_equal(whole, masked(frames, own, keep))


@pytest.mark.parametrize(
    ("mask", "message"),
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
        (list(disc(6)), r"frame 0 of item 3: array.* is no region"),
        ([[1, 2, 10**400, 6]] * 6, r"frame 0 of item 3: \[1, 2, 10+\.\.\.0+, 6\] must be a box"),
        (7, "mask of item 3 must be a path, an array or a list"),
    ],
)
def test_masks_that_do_not_fit_are_the_users_error(mask, message):
    with pytest.raises(UserError, match=message) as error:
        frames_at(greys(6), np.zeros(3), mask=mask, name="item 3")
    assert "\n" not in str(error.value)


def test_another_part_to_keep_is_the_users_error():
    with pytest.raises(UserError, match="keep='both' is unknown; allowed: object, background"):
        list(stream_at(greys(2), np.zeros(1), keep="both"))


def test_mask_files_that_cannot_be_read(tmp_path):
    contents = {
        "junk.npz": (b"junk", "is no .npz file"),
        "junk.json": (b"{", "cannot be read as JSON"),
        "junk.mp4": (b"junk", "mask of a cannot be decoded as video"),
    }
    for file, (content, message) in contents.items():
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read(tmp_path / file)
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(UserError, match=r"must hold an array 'mask', not \['a', 'b'\]"):
        read(tmp_path / "two.npz")
    np.savez(tmp_path / "objects.npz", mask=np.array([{}], object))
    with pytest.raises(UserError, match=r"is no \.npz file of numbers"):
        read(tmp_path / "objects.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no pictures"):
        read(tmp_path / "empty")


def save(path, pixels, pixel_format):
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as file:
        stream = file.add_stream("png", rate=1)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pixel_format
        frame = av.VideoFrame.from_ndarray(pixels, format=pixel_format)
        file.mux([*stream.encode(frame), *stream.encode()])


@pytest.mark.parametrize("names", ["{}.png", "frame_{}.png", "take2-{}.png", "clip 3 {:03}.png"])
def test_pictures_are_in_the_order_of_their_numbers(tmp_path, names):
    for number in range(12):
        pixels = np.zeros((24, 48), np.uint8)
        pixels[:, 4 * number : 4 * number + 4] = 255
        save(tmp_path / names.format(number), pixels, "gray")
    first = [int(np.flatnonzero(mask[0])[0]) for mask in read(tmp_path)]
    assert first == [4 * number for number in range(12)]


@pytest.mark.parametrize(
    "names", [("2.png", "10 a.png"), ("0.5.png", "0.25.png"), ("1-2.png", "1-10.png", "2-1.png")]
)
def test_pictures_without_a_certain_order_are_refused(tmp_path, names):
    for name in names:
        save(tmp_path / name, np.zeros((4, 6), np.uint8), "gray")
    with pytest.raises(UserError, match="has no certain order"):
        read(tmp_path)


@pytest.mark.parametrize("brightness", [0, 255])
def test_cut_outs_are_refused(tmp_path, brightness):
    pixels = np.full((4, 6, 4), brightness, np.uint8)
    pixels[..., 3] = 0
    pixels[1:3, 1:3, 3] = 255
    save(tmp_path / "0.png", pixels, "rgba")
    with pytest.raises(UserError, match=r"the mask .*0\.png of a is transparent in places"):
        read(tmp_path)


def test_several_colours_are_refused(tmp_path):
    """Some of them are bright and some are dark, as those of DAVIS."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:8, 3:12], labels[12:20, 3:12] = 1, 2
    for colours, is_refused in (
        (((0, 0, 0), (128, 0, 0), (192, 128, 0)), True),
        (((0, 0, 0), (255, 0, 0), (0, 255, 0)), True),
        (((0, 0, 0), (40, 40, 40), (200, 200, 200)), False),
        (((0, 0, 255), (0, 0, 200), (255, 255, 255)), False),
    ):
        save(tmp_path / "0.png", np.array(colours, np.uint8)[labels], "rgb24")
        picture = Image.fromarray(labels)
        picture.putpalette([number for colour in colours for number in colour])
        picture.save(tmp_path / "1.png")
        if is_refused:
            for path in (tmp_path / "0.png", tmp_path / "1.png"):
                with pytest.raises(UserError, match=rf"{path.name} of a has several colours"):
                    read(path)
        else:
            np.testing.assert_array_equal(read(tmp_path), np.stack([labels == 2] * 2))


def test_stored_edges_of_two_colours_are_no_third(tmp_path):
    pictures = np.where(disc(4)[..., None], 255, np.array([0, 0, 255])).astype(np.uint8)
    mask = read(write(tmp_path / "a.mp4", pictures))
    assert (mask != disc(4)).mean() < 0.05


def test_transparency_that_says_what_the_picture_does(tmp_path):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[1:3, 1:3] = 255
    save(tmp_path / "0.png", pixels, "rgba")
    pixels[..., 3] = 255
    save(tmp_path / "1.png", pixels, "rgba")
    np.testing.assert_array_equal(read(tmp_path), np.stack([pixels[..., 0] > 0] * 2))


def test_stretched_masks_are_the_nearest_in_time_and_place():
    masks = np.zeros((3, 2, 2), bool)
    masks[1, 0, 1] = masks[2, 1] = True
    stretched = read(video_masks.StretchedMasks(masks, 5), 4, 6)
    # round(i / 2), halves to even: masks 0, 0, 1, 2, 2
    assert [one.any() for one in stretched] == [False, False, True, True, True]
    np.testing.assert_array_equal(stretched[2], np.kron([[0, 1], [0, 0]], np.ones((2, 3))))
    np.testing.assert_array_equal(stretched[4], np.kron([[0, 0], [1, 1]], np.ones((2, 3))))


def test_an_excerpt_has_its_own_frames_and_masks(tmp_path):
    path = write(tmp_path / "v.mkv", greys(20), rate=10)
    excerpt = Excerpt(path, 0.5, 1.5)
    times = np.arange(10) / 10
    assert indices(frames_at(excerpt, times)) == list(range(5, 15))
    assert indices(frames_at(excerpt, np.array([0.0, 3.0]))) == [5, 14]
    masks = video_masks.StretchedMasks(np.ones((4, 3, 3), bool), 10)
    assert indices(frames_at(excerpt, times, mask=masks)) == list(range(5, 15))
    with pytest.raises(UserError, match="has no frames from 3 to 4 s"):
        frames_at(Excerpt(path, 3.0, 4.0), times)
