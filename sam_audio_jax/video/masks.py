"""Masks that mark an object in a video, in every form in which a caller may give them."""

import dataclasses
import functools
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import av
import numpy as np
from jaxtyping import Bool, UInt8

from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.files import read_json
from sam_audio_jax.video.reading import decode_frames, has_alpha, to_grey, upright

T = TypeVar("T")
FrameMask = Callable[[int, int], Bool[np.ndarray, "_ _"]]  # height, width -> True on the object
Region = Sequence[int | float]  # a box or a point with its radius, in pixels

KEEP = ("object", "background")
BRIGHT = 127  # a pixel of a mask picture that is brighter belongs to the object
COLOURED = 64  # the least difference of red, green and blue in a pixel of a colour
EDGE = 0.05  # of the coloured pixels, may have other colours where these are stored coarsely
NUMBER = re.compile(r"(\d+)")
FARTHEST = 10**9  # pixels from the corner to a region: squares of more overflow
MOST_PIXELS = 2**27  # of one frame of a mask
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class StretchedMasks:
    """Masks that are spread over the `frames` of a video, whatever their number and size.

    Frame `i` has the mask `round(i (masks - 1) / (frames - 1))`, halves rounded to even, and each
    pixel the nearest one of it, as the reference does with the masks of its benchmark.
    """

    masks: Bool[np.ndarray, "masks height width"]
    frames: int

    def __iter__(self) -> Iterator[FrameMask]:
        for index in np.rint(np.linspace(0, len(self.masks) - 1, self.frames)).astype(int):
            yield functools.partial(_scaled, self.masks[index])


def _scaled(
    mask: Bool[np.ndarray, "_ _"], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """The mask in another size: `floor(i * old / new)` is the old index of row or column `i`."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def read_masks(source: Any, name: str) -> Iterator[FrameMask]:
    """Yields one function for each frame, which draws its mask for a height and a width.

    `source` may be: a mask video or a folder of pictures in the order of their numbers (bright
    pixels are the object, several colours are an error); an `.npz` file (its array `mask`, or its
    only one); an array `[frames, height, width]` (bool, or uint8 with the object not 0); or
    regions: a list (or a `.json` file of it) with an entry for each frame, which is null, one
    region or a list of them. A region is a box `[x0, y0, x1, y1]` in pixels, without its right and
    lower edge, or a point with its radius `[x, y, radius]`. Masks other than regions have their own
    size, whatever the height and width are; `StretchedMasks` fit any video.

    Raises UserError if the source cannot be read; `name` is what the message calls the video.
    """
    if isinstance(source, StretchedMasks):
        return iter(source)
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        if path.is_dir():
            return _from_folder(path, name)
        if not path.is_file():
            raise UserError(f"{name}: no mask at {path}")
        if path.suffix.lower() == ".npz":
            return _from_npz(path, name)
        if path.suffix.lower() == ".json":
            return _from_regions(read_json(path), name)
        video = decode_frames(path, f"the mask of {name}")
        draw = functools.partial(_is_object, f"the mask {path} of {name}")
        return (functools.partial(_any_size, draw, frame) for _, frame in video)
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return _from_array(np.asarray(source), name)
    return _from_regions(source, name)


def apply_mask(
    frame: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    keep: str = "object",
) -> UInt8[np.ndarray, "height width 3"]:
    """Blackens everything but the object (the paper's masked video), or the object alone.

    `mask` is True on the object; `keep` is what stays visible.
    """
    return frame * (mask == (keep == "object"))[..., None]


def check_keep(keep: str, name: str = "keep") -> None:
    """Raises UserError if `keep` is neither "object" nor "background"."""
    if keep not in KEEP:
        raise UserError(f"{name}={keep!r} is unknown; allowed: {', '.join(KEEP)}")


def mask_videos(videos: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The reference's helper, which blackens what the mask SELECTS: `video * (mask == 0)`.

    Its masks broadcast against `[frames, 3, height, width]`. `apply_mask` has the usual meaning of
    a masked video, in which the object stays visible.
    """
    return [video * (mask == 0) for video, mask in zip(videos, masks, strict=True)]


def _is_object(name: str, frame: av.VideoFrame) -> Bool[np.ndarray, "_ _"]:
    """Returns which pixels of a mask picture are bright.

    Raises UserError for a cut-out: a picture whose opaque pixels are others than the bright ones;
    and for several colours, which are several objects, some of them bright and some dark.
    """
    bright = to_grey(frame) > BRIGHT
    if has_alpha(frame):
        alpha = upright(frame.to_ndarray(format="rgba")[..., 3], frame)
        if np.any(alpha < alpha.dtype.type(255)) and np.any(bright != (alpha > BRIGHT)):
            raise UserError(
                f"{name} is transparent in places, and not where it is dark: save it in black and "
                "white without transparency, the object in white"
            )
    if _has_several_colours(frame):
        raise UserError(
            f"{name} has several colours, such as those of several objects: save it in black and "
            "white, the object that is meant in white"
        )
    return bright


def _has_several_colours(frame: av.VideoFrame) -> bool:
    """Returns whether a picture has colours that differ in more than their brightness."""
    if len(frame.format.components) < 3 and not frame.format.has_palette:
        return False
    pixels = frame.to_ndarray(format="rgb24")
    least, most = pixels.min(-1), pixels.max(-1)
    coloured = most - least > COLOURED
    if not coloured.any():
        return False
    pure = (pixels[coloured] - least[coloured, None]) / (most - least)[coloured, None]
    edge = 0 if frame.format.is_rgb or frame.format.has_palette else EDGE
    lowest, highest = np.quantile(pure, (edge, 1 - edge), axis=0)
    return bool((highest - lowest).max() > 0.5)


def _any_size(mask: Callable[[T], np.ndarray], frame: T, height: int, width: int) -> np.ndarray:
    """Draws a mask that has a size of its own; a `FrameMask` once the first two are bound."""
    del height, width  # a picture has its own size, which the caller compares
    return mask(frame)


def _from_folder(folder: pathlib.Path, name: str) -> Iterator[FrameMask]:
    """Yields the masks of a folder of pictures, one picture at a time."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES]
    if not paths:
        raise UserError(f"{name}: the folder of masks {folder} has no pictures")
    for path in _in_order(paths, f"the folder of masks {folder} of {name}"):
        called = f"the mask {path} of {name}"
        _, frame = next(decode_frames(path, called))
        yield functools.partial(_any_size, functools.partial(_is_object, called), frame)


def _in_order(paths: Sequence[pathlib.Path], name: str) -> list[pathlib.Path]:
    """Returns numbered pictures in the order of their numbers, others in that of their names.

    So 2.png comes before 10.png. Raises UserError where the two orders differ and the names are not
    one text around one number: 0.5 and 0.25 may be numbers of a scene and a frame, or times.
    """
    by_name = sorted(paths, key=lambda path: path.name)
    parts = {path: NUMBER.split(path.stem) for path in paths}  # text, number, text, ...
    by_number = sorted(
        by_name,
        key=lambda path: [int(part) if i % 2 else part for i, part in enumerate(parts[path])],
    )
    if by_name == by_number or len({len(path.stem) for path in paths}) == 1:
        return by_name
    if len({len(row) for row in parts.values()}) == 1:
        columns = list(zip(*parts.values(), strict=True))
        (first, *more) = [i for i, column in enumerate(columns) if len(set(column)) > 1]
        is_fraction = first > 1 and columns[first - 1][0] == "."
        if not more and first % 2 and not is_fraction:
            return by_number
    one, other = next(pair for pair in zip(by_name, by_number, strict=True) if pair[0] != pair[1])
    raise UserError(
        f"{name} has no certain order: {one.name} comes before {other.name} by name, and after it "
        "by number; write every number with the same number of digits"
    )


def _from_array(mask: np.ndarray, name: str) -> Iterator[FrameMask]:
    """Returns the masks of an array; raises UserError for another dtype or shape."""
    if mask.ndim == 4 and mask.shape[1] == 1:  # the reference's masks have an axis for channels
        mask = mask[:, 0]
    if mask.ndim != 3 or mask.dtype not in (np.bool_, np.uint8):
        raise UserError(
            f"the mask of {name} must be bool or uint8 [frames, height, width], "
            f"not {mask.dtype} of shape {mask.shape}"
        )
    return (functools.partial(_any_size, np.asarray, frame != 0) for frame in mask)


def _from_npz(path: pathlib.Path, name: str) -> Iterator[FrameMask]:
    """Yields the masks in the array `mask` of a file, or its only one, one frame at a time.

    The header is read first: a small file may unpack to more than the memory holds.
    """
    try:
        with zipfile.ZipFile(path) as arrays:
            names = [entry.removesuffix(".npy") for entry in arrays.namelist()]
            if "mask" not in names and len(names) != 1:
                raise UserError(f"{name}: {path} must hold an array 'mask', not {shown(names)}")
            member = arrays.namelist()[names.index("mask") if "mask" in names else 0]
            with arrays.open(member) as stream:
                shape, dtype = _frame_header(stream, f"{name}: {path}")
                for _ in range(shape[0]):
                    data = stream.read(shape[1] * shape[2])
                    frame = np.frombuffer(data, dtype).reshape(shape[1:]) != 0
                    yield functools.partial(_any_size, np.asarray, frame)
    except UserError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{name}: {path} is no .npz file of numbers: {first_line(error)}") from None
    except (RuntimeError, zlib.error, SyntaxError) as error:
        raise UserError(f"{name}: {path} is no .npz file of numbers: {first_line(error)}") from None


def _frame_header(stream: Any, name: str) -> tuple[tuple[int, int, int], np.dtype]:
    """The shape `[frames, height, width]` and dtype in the header of an array; no data is read."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format has the version {version}")
    first = np.lib.format.read_array_header_1_0
    read = first if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if len(shape) == 4 and shape[1] == 1:  # as in `_from_array`
        shape = (shape[0], *shape[2:])
    if len(shape) != 3 or dtype not in (np.bool_, np.uint8) or columns_first:
        raise UserError(
            f"{name}: the mask must be bool or uint8 [frames, height, width], row by row, "
            f"not {dtype} of shape {shape}"
        )
    if shape[1] * shape[2] > MOST_PIXELS:
        raise UserError(f"{name}: a mask of {shape[1]} x {shape[2]} pixels is too large")
    return shape, dtype


def _from_regions(source: Any, name: str) -> Iterator[FrameMask]:
    """Returns the masks of a list of regions, which is checked whole before any is drawn."""
    if isinstance(source, str) or not isinstance(source, Sequence):
        raise UserError(
            f"the mask of {name} must be a path, an array or a list of regions, not {shown(source)}"
        )
    regions = [_parse_regions(entry, f"frame {i} of {name}") for i, entry in enumerate(source)]
    return (functools.partial(_draw_regions, entry) for entry in regions)


def _parse_regions(entry: Any, name: str) -> list[Region]:
    """Returns the regions of one frame; raises UserError for what is none."""
    if entry is None:
        return []
    if not isinstance(entry, Sequence) or isinstance(entry, str):
        raise UserError(f"{name}: {shown(entry)} is no region [x0, y0, x1, y1] or [x, y, radius]")
    if not entry or isinstance(entry[0], Sequence):
        return [region for part in entry for region in _parse_regions(part, name)]
    numbers = all(isinstance(n, int | float) and abs(n) <= FARTHEST for n in entry)
    box = numbers and len(entry) == 4 and entry[0] < entry[2] and entry[1] < entry[3]
    if not (box or (numbers and len(entry) == 3 and entry[2] >= 0)):
        raise UserError(
            f"{name}: {shown(entry)} must be a box [x0, y0, x1, y1] with x0 < x1 and y0 < y1, "
            "or a point [x, y, radius], in pixels"
        )
    return [entry]


def _draw_regions(
    regions: list[Region], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """Returns the mask that is True inside any of the regions."""
    row, column = np.ogrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for region in regions:
        if len(region) == 4:
            x0, y0, x1, y1 = region
            mask |= (column >= x0) & (column < x1) & (row >= y0) & (row < y1)
        else:
            x, y, radius = region
            mask |= (column - x) ** 2 + (row - y) ** 2 <= radius**2
    return mask
