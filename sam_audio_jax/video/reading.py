"""Decoding of video files with PyAV: frames with the times at which they are shown."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.stream
import numpy as np
from jaxtyping import Shaped, UInt8

from sam_audio_jax.audio.packets import (
    choose_track,
    clock_start,
    moves,
    read_packets,
    reason,
    url,
)
from sam_audio_jax.errors import UserError

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
    missing, cannot be decoded or has no frames; `name` is what the message calls the video.
    """
    if not path.is_file():
        raise UserError(f"{name}: no video file at {path}")
    count = 0
    try:
        with av.open(url(path)) as container:
            stream = video_stream(container, name)
            stream.thread_type = "AUTO"
            start = sound_start(container, name, track)
            rate = float(stream.average_rate or 1)
            for packet in read_packets(container, stream):
                for frame in _frames(packet):
                    time = count / rate if frame.time is None else frame.time
                    count += 1
                    yield time - start, frame
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{name} cannot be decoded as video: {reason(error)}") from None
    if not count:
        raise UserError(f"{name} has no frames")


def _frames(packet: Any) -> list[av.VideoFrame]:
    """Returns the pictures that a packet completes; none if it is damaged, as players do."""
    try:
        return packet.decode()
    except (av.error.FFmpegError, ValueError):
        return []


def to_rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture as it is shown."""
    return upright(frame.to_ndarray(format="rgb24"), frame)


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
        if stream.duration is not None:
            end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
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
    return max(0.0, clock_start(container, float(stream.start_time * stream.time_base)))
