"""The frames of a video that belong to times of its sound, masked or as they are."""

import functools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from sam_audio_jax.errors import UserError
from sam_audio_jax.video.masks import FrameMask, apply_mask, check_keep, read_masks
from sam_audio_jax.video.reading import Excerpt, decode_frames, to_rgb

T = TypeVar("T")
Frames = UInt8[np.ndarray, "_ _ _ 3"]  # count, height, width
Picture = Callable[[], UInt8[np.ndarray, "_ _ 3"]]  # decoded already; converted to RGB by the call


def latent_times(frames: int, hop: int, sample_rate: int) -> Float32[np.ndarray, " frames"]:
    """Returns where latent frames begin, in seconds; float32 as in the reference."""
    return (np.arange(frames) * hop).astype(np.float32) / np.float32(sample_rate)


def spread_indices(frames: int, size: int) -> Int[np.ndarray, " size"]:
    """Returns `size` indices of frames, spread evenly over the first to the last of them."""
    return np.rint(np.linspace(0, frames - 1, size)).astype(np.int64)


def nearest(timed: Iterable[tuple[float, T]], times: Float[np.ndarray, " size"]) -> Iterator[T]:
    """Yields, for each of the rising `times`, the item nearest in time, the earlier one on ties.

    The items' times rise too; an item whose time does not is passed over. Two items are held at
    once.
    """
    stream = _rising(timed)
    here, ahead = next(stream), next(stream, None)
    for time in times.astype(np.float64):
        while ahead is not None and abs(ahead[0] - time) < abs(here[0] - time):
            here, ahead = ahead, next(stream, None)
        yield here[1]


def _rising(timed: Iterable[tuple[float, T]]) -> Iterator[tuple[float, T]]:
    """Leaves out items whose time is not later than that of the one before."""
    last = -math.inf
    for time, item in timed:
        if time > last:
            last = time
            yield time, item


def stream_at(
    source: Any,
    times: Float[np.ndarray, " size"],
    *,
    mask: Any = None,
    keep: str = "object",
    most: int = 32,
    name: str | None = None,
    track: int | None = None,
) -> Iterator[Frames]:
    """Yields one frame for each of the rising `times` (seconds of the sound), `most` at once.

    From a video file comes the frame that is nearest in time; before and after the video that is
    the first or last one; of an `Excerpt` its own frames alone are taken. An array
    `[frames, height, width, 3]` (or `[frames, 3, height, width]`) of uint8 spans the whole sound,
    whatever its rate. `mask` is anything that `read_masks` reads, one mask for each frame of the
    source; `keep` says whether the object or the background stays visible, everything else becomes
    black. `name` is what errors call the video, `track` the file's audio track that is the sound
    (None: the one that players take).

    Raises UserError if the video cannot be decoded or has no frames, or if the mask has another
    size or length, or no object.
    """
    name = name or (str(source) if isinstance(source, str | os.PathLike) else "the video")
    check_keep(keep)
    if isinstance(source, str | os.PathLike | Excerpt):
        timed, times_of_source = _pictures(source, name, track), times
    else:
        frames = _as_frames(source, name)
        times_of_source = spread_indices(len(frames), len(times)).astype(np.float64)
        timed = ((float(i), functools.partial(frames.__getitem__, i)) for i in range(len(frames)))
    pairs = _paired(timed, None if mask is None else read_masks(mask, name), name)
    last, frame, piece, shape, marked = None, None, [], None, mask is None
    for pair in nearest(pairs, times_of_source):
        if pair is not last:
            last = picture, frame_mask = pair
            frame = picture()
            shape = shape or frame.shape
            if frame.shape != shape:
                raise UserError(f"{name} changes its size from {shape[:2]} to {frame.shape[:2]}")
            if frame_mask is not None:
                object_pixels = _check_size(frame_mask(*shape[:2]), shape, name)
                marked = marked or bool(object_pixels.any())
                frame = apply_mask(frame, object_pixels, keep)
        piece.append(frame)
        if len(piece) == most:
            yield np.stack(piece)
            piece = []
    if piece:
        yield np.stack(piece)
    if mask is not None:
        for _ in pairs:  # raises if there are more masks than frames, or fewer
            pass
    if not marked:
        raise UserError(f"the mask of {name} marks no object in any frame that is looked at")


def _paired(
    timed: Iterable[tuple[float, Picture]], masks: Iterator[FrameMask] | None, name: str
) -> Iterator[tuple[float, tuple[Picture, FrameMask | None]]]:
    """Yields each frame with its mask; raises UserError if they are not equally many."""
    count = 0
    for time, picture in timed:
        frame_mask = None if masks is None else next(masks, None)
        if frame_mask is None and masks is not None:
            raise UserError(f"the mask of {name} has {count} frames, the video has more")
        count += 1
        yield time, (picture, frame_mask)
    if masks is not None and next(masks, None) is not None:
        raise UserError(f"the mask of {name} has more than the video's {count} frames")


def _pictures(
    source: str | os.PathLike | Excerpt, name: str, track: int | None
) -> Iterator[tuple[float, Picture]]:
    """Yields the frames of a file with their times, converted to RGB only when needed."""
    is_part = isinstance(source, Excerpt)
    frames = source.frames(name) if is_part else decode_frames(pathlib.Path(source), name, track)
    for time, frame in frames:
        yield time, functools.partial(to_rgb, frame)


def _as_frames(source: Any, name: str) -> Frames:
    """Returns an array with its channels last; raises UserError for another dtype or shape."""
    frames = np.asarray(source)
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = np.moveaxis(frames, 1, 3)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise UserError(
            f"{name} must be a path or uint8 frames [frames, height, width, 3], "
            f"not {frames.dtype} of shape {frames.shape}"
        )
    if not frames.size:
        raise UserError(f"{name} has no frames")
    return frames


def _check_size(
    mask: Bool[np.ndarray, "_ _"], shape: tuple[int, ...], name: str
) -> Bool[np.ndarray, "_ _"]:
    """Returns the mask; raises UserError unless it has the height and width of `shape`."""
    if mask.shape != shape[:2]:
        ours, theirs = (f"{size[1]} x {size[0]}" for size in (mask.shape, shape))
        raise UserError(f"the mask of {name} is {ours} pixels, the video {theirs}")
    return mask
