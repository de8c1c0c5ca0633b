"""Decoding of video files with PyAV: frames with the times at which they are shown."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.stream
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageOps

from sam_audio_jax.audio.packets import (
    RESTARTING,
    choose_track,
    clock_start,
    moves,
    read_packets,
    reason,
    tagged_end,
    url,
)
from sam_audio_jax.audio.timeline import NEW_CLOCK_S, RESTART_S
from sam_audio_jax.errors import UserError

MIRRORED = (2, 4, 5, 7)  # orientations of Exif
EXIF = ("JPEG", "PNG", "WEBP")  # pictures with such an entry
ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that read the transparency of WebM
SLACK_S = 1e-3  # time stamps of frames are rounded
SHORT_S = 1.0  # by so much pictures may end before the sound without a note


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A part of a video file, in seconds from the beginning of `audio.load(path)`."""

    path: pathlib.Path
    start: float
    stop: float

    def frames(self, name: str) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yields (time, frame) as `decode_frames`; times count from the excerpt's start.

        Raises UserError also if no frame of the file lies in it.
        """
        count = 0
        for time, frame in decode_frames(self.path, name):
            if time >= self.stop - SLACK_S:
                break
            if time >= self.start - SLACK_S:
                count += 1
                yield time - self.start, frame
        if not count:
            raise UserError(f"{name} has no frames from {self.start:g} to {self.stop:g} s")


def decode_frames(
    path: pathlib.Path, name: str, track: int | None = None
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (time, frame); times are in seconds from the beginning of `audio.load(path, track)`.

    Of a file without sound they count from its first picture. Raises UserError if the file is
    missing, cannot be decoded, has no frames, or frames on more than one clock; `name` is what the
    message calls the video.
    """
    if not path.is_file():
        raise UserError(f"{name}: no video file at {path}")
    count, first, last = 0, math.nan, math.nan
    try:
        with av.open(url(path)) as container:
            stream = video_stream(container, name)
            decoder = _decoder(stream)
            start = sound_start(container, name, track)
            rate = float(stream.average_rate or 1)
            restarts = not RESTARTING.isdisjoint(container.format.name.split(","))
            for packet in read_packets(container, stream):
                for frame in _frames(decoder, packet):
                    time = (count / rate if frame.time is None else frame.time) - start
                    first = time if not count else first
                    if restarts and _is_another_clock(first, last, time):
                        raise UserError(
                            f"{name} has pictures on more than one clock, as joined files have: "
                            f"{time:.1f} s comes after {last:.1f} s; remux it first (FFmpeg: "
                            "-i IN -c copy OUT.mp4)"
                        )
                    count, last = count + 1, time
                    yield time, _corrected(frame, path, container.format.name)
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{name} cannot be decoded as video: {reason(error)}") from None
    if not count:
        raise UserError(f"{name} has no frames")


def _is_another_clock(first: float, last: float, time: float) -> bool:
    """Returns whether `audio.load` takes such times, in seconds, for a clock that begins anew."""
    return abs(time - last) > NEW_CLOCK_S or (time < last - 1 and time - first < RESTART_S)


def _decoder(stream: Any) -> Any:
    """Returns what decodes a stream: FFmpeg's decoder, for transparent WebM the one that reads it.

    FFmpeg's own gives the colours that a player does not show.
    """
    name = ALPHA.get(stream.codec_context.name if stream.codec_context else "")
    if name is None or stream.metadata.get("alpha_mode") != "1":
        stream.thread_type = "AUTO"
        return stream.codec_context
    return av.CodecContext.create(name, "r")


def _corrected(frame: av.VideoFrame, path: pathlib.Path, kind: str) -> av.VideoFrame:
    """Returns a frame that says right how it is shown; `kind` is FFmpeg's name of the format."""
    if kind == "avi" and has_alpha(frame) and not frame.to_ndarray(format="rgba")[..., 3].any():
        return frame.reformat(format="rgb24")  # AVI's fourth byte of a pixel means nothing
    return (_mirrored_picture(path) if kind.endswith("_pipe") else None) or frame


def _mirrored_picture(path: pathlib.Path) -> av.VideoFrame | None:
    """Returns a picture that an Exif entry mirrors, as it is shown; None for any other one.

    PyAV gives the rotation in such an entry alone.
    """
    try:
        with Image.open(path, formats=EXIF) as picture:
            if picture.getexif().get(ExifTags.Base.Orientation) not in MIRRORED:
                return None
            shown = np.asarray(ImageOps.exif_transpose(picture).convert("RGBA"))
    except Exception:  # another format, or a damaged entry, which players do not read either
        return None
    return av.VideoFrame.from_ndarray(shown, format="rgba")


def _frames(decoder: Any, packet: Any) -> list[av.VideoFrame]:
    """Returns the pictures that a packet completes; none if it is damaged, as players do."""
    try:
        return decoder.decode(packet)
    except (av.error.FFmpegError, ValueError):
        return []


def to_rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture as it is shown: black where it is transparent."""
    if not has_alpha(frame):
        return upright(frame.to_ndarray(format="rgb24"), frame)
    stored = frame.to_ndarray(format="rgba")
    shares = stored[..., 3:].astype(np.uint16)
    return upright(((stored[..., :3] * shares + 127) // 255).astype(np.uint8), frame)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Returns whether pixels of a picture may be transparent."""
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def to_grey(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _"]:
    """Returns the brightness of the picture as it is shown."""
    return upright(frame.to_ndarray(format="gray"), frame)


def upright(stored: Shaped[np.ndarray, "_ _ *parts"], frame: av.VideoFrame) -> np.ndarray:
    """Returns what is stored of a frame turned and mirrored as players show it.

    Phones store portrait videos rotated, and some those of the front camera mirrored, and say so in
    the file's display matrix.
    """
    stored = np.flipud(stored) if _is_mirrored(frame) else stored
    return np.rot90(stored, frame.rotation // 90)


def _is_mirrored(frame: av.VideoFrame) -> bool:
    """Returns whether the display matrix of a frame mirrors it, which `rotation` leaves out."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # of a picture with an Exif entry, which PyAV does not know
        return False
    if matrix is None:
        return False
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    return a * d < b * c


def video_stream(container: Any, name: str) -> Any:
    """Returns the stream that a player shows: the one marked as default, else the largest.

    The cover picture of a song is no video. Raises UserError if there is none.
    """
    streams = [stream for stream in container.streams.video if moves(stream)]
    if not streams:
        raise UserError(f"{name} has no video stream")
    default = av.stream.Disposition.default
    return max(streams, key=lambda stream: (bool(stream.disposition & default), *_size(stream)))


def _size(stream: Any) -> tuple[int, int]:
    """Returns height and width; zeros where the codec is unknown."""
    context = stream.codec_context
    return (context.height, context.width) if context else (0, 0)


def video_notes(path: pathlib.Path, seconds: float, track: int | None = None) -> tuple[str, ...]:
    """Returns what to know about a video before it is used beside a sound of so many seconds.

    That is which of several streams is shown, and that the pictures end long before the sound,
    where the file says so. `track` is as in `decode_frames`.
    """
    notes: list[str] = []
    if not path.is_file():  # opening a pipe would wait for ever
        return ()
    with contextlib.suppress(av.error.FFmpegError, ValueError, OSError), av.open(url(path)) as file:
        streams = [stream for stream in file.streams.video if moves(stream)]
        if not streams:
            return ()
        stream = video_stream(file, str(path))
        if len(streams) > 1:
            shown = streams.index(stream) + 1
            sizes = [f"{n}: {_size(s)[1]} x {_size(s)[0]}" for n, s in enumerate(streams, 1)]
            notes.append(f"{path} has {len(streams)} videos ({', '.join(sizes)}): {shown} is shown")
        end = tagged_end(stream)
        if stream.duration is not None:
            end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        if end:
            end -= sound_start(file, str(path), track)
            if end < seconds - SHORT_S:
                notes.append(
                    f"the pictures of {path} end at {max(end, 0):.1f} s, the sound at "
                    f"{seconds:.1f} s: the last picture stands for the rest"
                )
    return tuple(notes)


def sound_start(container: Any, name: str, track: int | None = None) -> float:
    """Returns the time, on the container's clock, at which the recording begins.

    That is where `audio.load` of the track begins: a player's clock, which starts with the picture
    or the sound. Without sound it starts with the picture: a file of its own has the sound.
    """
    if container.streams.audio or track is not None:
        stream, _ = choose_track(container, name, track)
    else:
        stream = video_stream(container, name)
    if stream.start_time is None:
        return 0.0
    start = clock_start(container, float(stream.start_time * stream.time_base))
    # What others have below 0 is an encoder's padding, which is not played; a transport stream has
    # all there that comes before the end of its clock, which is one of 26.5 hours.
    return start if container.format.name in ("mpegts", "mpeg") else max(0.0, start)
