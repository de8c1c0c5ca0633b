"""Decoding of video files with PyAV: frames with the times at which they are shown."""

import pathlib
from collections.abc import Iterator
from typing import Any

import av
import av.error
import av.stream
import numpy as np
from jaxtyping import UInt8

from sam_audio_jax.errors import UserError


def decode_frames(path: pathlib.Path, name: str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (time, frame); times are in seconds from the beginning of the file's sound.

    Raises UserError if the file is missing, cannot be decoded or has no frames; `name` is what the
    message calls the video.
    """
    if not path.is_file():
        raise UserError(f"{name}: no video file at {path}")
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = video_stream(container, name)
            stream.thread_type = "AUTO"
            start, rate = sound_start(container), float(stream.average_rate or 1)
            for frame in container.decode(stream):
                time = count / rate if frame.time is None else frame.time
                count += 1
                yield time - start, frame
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{name} cannot be decoded as video: {ffmpeg_reason(error)}") from None
    if not count:
        raise UserError(f"{name} has no frames")


def to_rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the picture upright: phones store portrait videos rotated and say so in the file."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def to_grey(frame: av.VideoFrame) -> UInt8[np.ndarray, "_ _"]:
    """Returns the brightness of the upright picture."""
    return np.rot90(frame.to_ndarray(format="gray"), frame.rotation // 90)


def video_stream(container: Any, name: str) -> Any:
    """Returns the first stream that moves: the cover picture of a song is no video.

    Raises UserError if there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise UserError(f"{name} has no video stream")


def sound_start(container: Any) -> float:
    """Returns the time, on the container's clock, at which the sound begins.

    It is 0 without sound, which the reference assumes always.
    """
    sounds = [s for s in container.streams.audio if s.start_time is not None]
    return max(0.0, float(sounds[0].start_time * sounds[0].time_base)) if sounds else 0.0


def ffmpeg_reason(error: Exception) -> str:
    """Returns FFmpeg's own message, without its number and the path."""
    return getattr(error, "strerror", None) or str(error)
