"""Video files: frames at given times, masks of an object, a new sound track.

The only file that knows video formats (spec/model.md, section 8). Frames pass one after another:
what is held at once does not grow with the length of a video file.
"""

import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import av
import av.error
import av.stream
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError

T = TypeVar("T")
Picture = Callable[[], UInt8[np.ndarray, "_ _ 3"]]  # decoded; converted to colours when asked
Marks = Callable[[int, int], Bool[np.ndarray, "_ _"]]  # height, width -> True on the object
Frames = UInt8[np.ndarray, "_ _ _ 3"]  # count, height, width
Region = Sequence[int | float]  # a box or a point with its radius, in pixels

KEEP = ("object", "background")
BRIGHT = 127  # above: object, in masks that are pictures
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
CODECS = {".mp4": "aac", ".m4v": "aac", ".mov": "aac", ".webm": "libopus", ".mkv": "libopus"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
BIT_RATE = 192_000
CHUNK = 1024  # samples handed to the encoder at once


def latent_times(frames: int, hop: int, sample_rate: int) -> Float32[np.ndarray, " frames"]:
    """Where latent frames begin, in seconds; float32 as in the reference."""
    return (np.arange(frames) * hop).astype(np.float32) / np.float32(sample_rate)


def spread(frames: int, size: int) -> Int[np.ndarray, " size"]:
    """Which of `frames` frames, taken as spanning the whole sound, stands for each of `size`."""
    return np.rint(np.linspace(0, frames - 1, size)).astype(np.int64)


def nearest(timed: Iterable[tuple[float, T]], times: Float[np.ndarray, " size"]) -> Iterator[T]:
    """For each of the rising `times` the item whose time is nearest, the earlier one on ties.

    The items' times rise too; one that does not is passed over. Holds two items at once.
    """
    stream = _rising(timed)
    here, ahead = next(stream), next(stream, None)
    for time in times.astype(np.float64):
        while ahead is not None and abs(ahead[0] - time) < abs(here[0] - time):
            here, ahead = ahead, next(stream, None)
        yield here[1]


def _rising(timed: Iterable[tuple[float, T]]) -> Iterator[tuple[float, T]]:
    last = -math.inf
    for time, item in timed:
        if time > last:
            last = time
            yield time, item


def frames_at(
    source: Any,
    times: Float[np.ndarray, " size"],
    *,
    mask: Any = None,
    keep: str = "object",
    change: Callable[[Frames], Frames] | None = None,
    name: str | None = None,
) -> Frames:
    """One frame for each time, all at once; `change` (a resize, say) sees them piece by piece.

    The rest is as in `stream_at`.
    """
    pieces = stream_at(source, times, mask=mask, keep=keep, name=name)
    return np.concatenate([piece if change is None else change(piece) for piece in pieces])


def stream_at(
    source: Any,
    times: Float[np.ndarray, " size"],
    *,
    mask: Any = None,
    keep: str = "object",
    most: int = 32,
    name: str | None = None,
) -> Iterator[Frames]:
    """One frame for each of the rising `times` (seconds of the sound), `most` in a piece.

    From a video file comes the frame that is nearest in time, the first or last one beyond its
    ends. An array `[frames, height, width, 3]` (or `[frames, 3, height, width]`) of uint8 is taken
    as spanning the whole sound, whatever its rate. `mask` is anything that `read_mask` reads, one
    mask for each frame of the source; the rest of the picture (or the object, if the background is
    kept) becomes black. `name` is what errors call the video.
    UserError: not decodable, no frames, or a mask of another size or length, or without an object.
    """
    name = name or (str(source) if isinstance(source, str | os.PathLike) else "the video")
    _check_keep(keep)
    if isinstance(source, str | os.PathLike):
        timed, wanted = _pictures(pathlib.Path(source), name), times
    else:
        frames = _as_frames(source, name)
        wanted = spread(len(frames), len(times)).astype(np.float64)
        timed = ((float(i), functools.partial(frames.__getitem__, i)) for i in range(len(frames)))
    pairs = _paired(timed, None if mask is None else _marks(mask, name), name)
    last, frame, piece, shape, found = None, None, [], None, mask is None
    for pair in nearest(pairs, wanted):
        if pair is not last:
            last = picture, marks = pair
            frame = picture()
            shape = shape or frame.shape
            if frame.shape != shape:
                raise UserError(f"{name} changes its size from {shape[:2]} to {frame.shape[:2]}")
            if marks is not None:
                seen = _fitting(marks(*shape[:2]), shape, name)
                found = found or bool(seen.any())
                frame = _blackened(frame, seen, keep)
        piece.append(frame)
        if len(piece) == most:
            yield np.stack(piece)
            piece = []
    if piece:
        yield np.stack(piece)
    if mask is not None:
        for _ in pairs:  # only to see that there are as many masks as frames
            pass
    if not found:
        raise UserError(f"the mask of {name} marks no object in any frame that is looked at")


def _paired(
    timed: Iterable[tuple[float, Picture]], masks: Iterator[Marks] | None, name: str
) -> Iterator[tuple[float, tuple[Picture, Marks | None]]]:
    """Frames with their masks, in step."""
    count = 0
    for time, picture in timed:
        marks = None if masks is None else next(masks, None)
        if marks is None and masks is not None:
            raise UserError(f"the mask of {name} has {count} frames, the video has more")
        count += 1
        yield time, (picture, marks)
    if masks is not None and next(masks, None) is not None:
        raise UserError(f"the mask of {name} has more than the video's {count} frames")


def _as_frames(source: Any, name: str) -> Frames:
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


def _pictures(path: pathlib.Path, name: str) -> Iterator[tuple[float, Picture]]:
    for time, frame in _decoded(path, name):
        yield time, functools.partial(_colours, frame)


def _colours(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _ 3"]:
    """As it is meant to be seen: phones store portrait pictures lying on their side."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _is_object(frame: av.VideoFrame) -> Bool[np.ndarray, "_ _"]:
    return np.rot90(frame.to_ndarray(format="gray") > BRIGHT, frame.rotation // 90)


def _decoded(path: pathlib.Path, name: str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their times in seconds from the beginning of the file's sound."""
    if not path.is_file():
        raise UserError(f"{name}: no video file at {path}")
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, name)
            stream.thread_type = "AUTO"
            start, rate = _sound_start(container), float(stream.average_rate or 1)
            for frame in container.decode(stream):
                time = count / rate if frame.time is None else frame.time
                count += 1
                yield time - start, frame
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{name} cannot be decoded as video: {_reason(error)}") from None
    if not count:
        raise UserError(f"{name} has no frames")


def _reason(error: Exception) -> str:
    """FFmpeg's own words, without its number and the path."""
    return getattr(error, "strerror", None) or str(error)


def _video_stream(container: Any, name: str) -> Any:
    """The first that moves: the cover picture of a song is no video."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise UserError(f"{name} has no video stream")


def _sound_start(container: Any) -> float:
    """Seconds on the container's clock; 0 without sound, as the reference assumes always."""
    sounds = [s for s in container.streams.audio if s.start_time is not None]
    return max(0.0, float(sounds[0].start_time * sounds[0].time_base)) if sounds else 0.0


def read_mask(
    source: Any, frames: int, height: int, width: int, *, name: str = "the video"
) -> Bool[np.ndarray, "frames height width"]:
    """True on the object, for a video of this size.

    `source`: a mask video or a folder of pictures in the order of their names (bright = object), an
    `.npz` file (its array `mask`, or its only one), an array `[frames, height, width]` (bool, or
    uint8 with the object not 0), or regions: a list (or a `.json` file of it) with an entry for
    each frame, which is null, one region or a list of them. A region is a box `[x0, y0, x1, y1]`
    in pixels, without its right and lower edge, or a point with its radius `[x, y, radius]`.
    UserError: unreadable, another size or number of frames, or no object anywhere.
    """
    masks = [
        _fitting(marks(height, width), (height, width, 3), name) for marks in _marks(source, name)
    ]
    if len(masks) != frames:
        raise UserError(f"the mask of {name} has {len(masks)} frames, the video {frames}")
    mask = np.stack(masks)
    _check_marked(mask, name)
    return mask


def _fitting(
    mask: Bool[np.ndarray, "_ _"], shape: tuple[int, ...], name: str
) -> Bool[np.ndarray, "_ _"]:
    if mask.shape != shape[:2]:
        ours, theirs = (f"{size[1]} x {size[0]}" for size in (mask.shape, shape))
        raise UserError(f"the mask of {name} is {ours} pixels, the video {theirs}")
    return mask


def _check_marked(mask: Bool[np.ndarray, "..."], name: str) -> None:
    if not mask.any():
        raise UserError(f"the mask of {name} marks no object in any frame")


def _marks(source: Any, name: str) -> Iterator[Marks]:
    """The masks of a video's frames, one after another."""
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        if path.is_dir():
            return _of_folder(path, name)
        if not path.is_file():
            raise UserError(f"{name}: no mask at {path}")
        if path.suffix.lower() == ".npz":
            return _of_array(_read_npz(path, name), name)
        if path.suffix.lower() == ".json":
            return _of_regions(_read_json(path, name), name)
        video = _decoded(path, f"the mask of {name}")
        return (functools.partial(_any_size, _is_object, frame) for _, frame in video)
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return _of_array(np.asarray(source), name)
    return _of_regions(source, name)


def _any_size(mask: Callable[[T], np.ndarray], frame: T, height: int, width: int) -> np.ndarray:
    del height, width  # a picture has its own, which is compared afterwards
    return mask(frame)


def _of_folder(folder: pathlib.Path, name: str) -> Iterator[Marks]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not paths:
        raise UserError(f"{name}: the folder of masks {folder} has no pictures")
    for path in paths:
        _, frame = next(_decoded(path, f"the mask {path} of {name}"))
        yield functools.partial(_any_size, _is_object, frame)


def _of_array(mask: np.ndarray, name: str) -> Iterator[Marks]:
    if mask.ndim == 4 and mask.shape[1] == 1:  # upstream's masks have an axis for channels
        mask = mask[:, 0]
    if mask.ndim != 3 or mask.dtype not in (np.bool_, np.uint8):
        raise UserError(
            f"the mask of {name} must be bool or uint8 [frames, height, width], "
            f"not {mask.dtype} of shape {mask.shape}"
        )
    return (functools.partial(_any_size, np.asarray, frame != 0) for frame in mask)


def _read_npz(path: pathlib.Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            if "mask" not in names and len(names) != 1:
                raise UserError(f"{name}: {path} must hold an array 'mask', not {names}")
            return arrays["mask" if "mask" in names else names[0]]
    except UserError:
        raise
    except (ValueError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{name}: {path} is no .npz file of numbers: {error}") from None


def _read_json(path: pathlib.Path, name: str) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{name}: {path} cannot be read as JSON: {error}") from None


def _of_regions(source: Any, name: str) -> Iterator[Marks]:
    if isinstance(source, str) or not isinstance(source, Sequence):
        raise UserError(
            f"the mask of {name} must be a path, an array or a list of regions, not {source!r}"
        )
    regions = [_parse_regions(entry, f"frame {i} of {name}") for i, entry in enumerate(source)]
    return (functools.partial(_drawn, entry) for entry in regions)


def _parse_regions(entry: Any, name: str) -> list[Region]:
    if entry is None:
        return []
    if not isinstance(entry, Sequence) or isinstance(entry, str):
        raise UserError(f"{name}: {entry!r} is no region [x0, y0, x1, y1] or [x, y, radius]")
    if not entry or isinstance(entry[0], Sequence):
        return [region for part in entry for region in _parse_regions(part, name)]
    numbers = all(isinstance(n, int | float) and math.isfinite(n) for n in entry)
    box = numbers and len(entry) == 4 and entry[0] < entry[2] and entry[1] < entry[3]
    if not (box or (numbers and len(entry) == 3 and entry[2] >= 0)):
        raise UserError(
            f"{name}: {entry!r} must be a box [x0, y0, x1, y1] with x0 < x1 and y0 < y1, "
            "or a point [x, y, radius], in pixels"
        )
    return [entry]


def _drawn(regions: list[Region], height: int, width: int) -> Bool[np.ndarray, "height width"]:
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


def apply_mask(
    frames: UInt8[np.ndarray, "frames height width 3"],
    mask: Bool[np.ndarray, "_ _ _"],
    keep: str = "object",
    *,
    name: str = "the video",
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Blackens everything but the object (what the paper calls a masked video), or the object.

    `mask` is True on the object, `[frames, height, width]`; UserError if it does not fit.
    """
    _check_keep(keep)
    if len(mask) != len(frames):
        raise UserError(f"the mask of {name} has {len(mask)} frames, the video {len(frames)}")
    if mask.shape != frames.shape[:3]:
        _fitting(mask[0], frames.shape[1:], name)
    _check_marked(mask, name)
    return _blackened(frames, mask, keep)


def _blackened(frames: np.ndarray, mask: np.ndarray, keep: str) -> np.ndarray:
    return frames * (mask == (keep == "object"))[..., None]


def _check_keep(keep: str) -> None:
    if keep not in KEEP:
        raise UserError(f"keep={keep!r} is unknown; allowed: {', '.join(KEEP)}")


def mask_videos(videos: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The reference's helper, which blackens what the mask SELECTS: `video * (mask == 0)`.

    Its masks broadcast against `[frames, 3, height, width]`. For the usual meaning of a masked
    video see `apply_mask`.
    """
    return [video * (mask == 0) for video, mask in zip(videos, masks, strict=True)]


def mux(
    video_path: str | os.PathLike,
    wave: Float[np.ndarray, "channels samples"],
    sample_rate: int,
    out_path: str | os.PathLike,
) -> None:
    """The video's pictures, unchanged, with another sound; written whole or not at all.

    AAC in .mp4, .m4v and .mov, Opus in .webm and .mkv. The sound begins where the old one began.
    UserError: no such video, a container that cannot hold it, or a wave that is not mono or stereo.
    """
    source_path, out_path = pathlib.Path(video_path), pathlib.Path(out_path)
    codec = CODECS.get(out_path.suffix.lower())
    if codec is None:
        raise UserError(f"{out_path} must end in one of {', '.join(CODECS)}")
    if not source_path.is_file():
        raise UserError(f"no video file at {source_path}")
    if len(wave) not in (1, 2) or not wave.size:
        raise UserError(f"the sound for {out_path} has shape {wave.shape}; 1 or 2 channels can be")
    rate = sample_rate if codec == "aac" and sample_rate in AAC_RATES else 48_000
    samples = audio.resample(wave, sample_rate, rate)
    try:
        with (
            audio.whole_file(out_path) as part,
            av.open(str(source_path)) as source,
            av.open(str(part), "w") as out,
        ):
            _mux(source, out, samples, rate, codec, str(source_path))
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(
            f"{source_path} cannot be copied into {out_path}: {_reason(error)}"
        ) from None


def _mux(
    source: Any,
    out: Any,
    samples: Float32[np.ndarray, "channels samples"],
    rate: int,
    codec: str,
    name: str,
) -> None:
    pictures = _video_stream(source, name)
    copied = out.add_stream_from_template(pictures, opaque=True)
    layout = "mono" if len(samples) == 1 else "stereo"
    sound = out.add_stream(codec, rate=rate, layout=layout, bit_rate=BIT_RATE)
    start = _sound_start(source)
    chunks = iter(range(0, samples.shape[1], CHUNK))
    ready = 0.0  # seconds of sound written

    def write(at: int) -> float:
        chunk = np.ascontiguousarray(samples[:, at : at + CHUNK])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, round(start * rate) + at
        out.mux(sound.encode(frame))
        return start + at / rate

    for packet in source.demux(pictures):
        if packet.dts is None:  # the end
            continue
        while ready < packet.dts * packet.time_base and (at := next(chunks, None)) is not None:
            ready = write(at)
        packet.stream = copied
        out.mux(packet)
    for at in chunks:
        write(at)
    out.mux(sound.encode(None))
