"""Small videos that tests make and look at."""

import fractions
import pathlib
from collections.abc import Sequence

import av
import numpy as np

from sam_audio_jax.video.frames import Frames, stream_at

HEIGHT, WIDTH = 24, 32
ENCODERS = {".mp4": "libx264", ".webm": "libvpx-vp9", ".mkv": "ffv1"}


def frames_at(source, times, **arguments) -> Frames:
    """All frames of `stream_at` in one array."""
    return np.concatenate(list(stream_at(source, times, **arguments)))


def greys(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frames that differ in their brightness, which rises by 8 each, from 16."""
    levels = (16 + 8 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3))


def write(path: pathlib.Path, frames: np.ndarray, rate: int = 10, pts=None) -> pathlib.Path:
    """Writes a video at `rate`, or with the times `pts` in 1/1000 s."""
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
    """Returns the number of each frame among `greys`."""
    return np.rint((frames.mean(axis=(1, 2, 3)) - 16) / 8).astype(int).tolist()


def disc(count: int) -> np.ndarray:
    """A mask that moves by a pixel a frame."""
    row, column = np.ogrid[:HEIGHT, :WIDTH]
    return np.stack([(row - 10) ** 2 + (column - 8 - i) ** 2 < 30 for i in range(count)])


def picture_of(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=-1)


def write_with_sound(
    path: pathlib.Path,
    frames: np.ndarray,
    begin: float,
    picture_begin: float = 0.0,
    others: Sequence[float] = (),
) -> pathlib.Path:
    """Ten frames a second, and a tenth of a second of silence that begins at `begin` seconds.

    More audio tracks of the same begin at `others`.
    """
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=10)
        pictures.height, pictures.width, pictures.pix_fmt = HEIGHT, WIDTH, "bgr0"
        begins = [begin, *others]
        sounds = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in begins]
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = round(10 * picture_begin) + number
            container.mux(pictures.encode(picture))
        for sound, start in zip(sounds, begins, strict=True):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
            silence.sample_rate, silence.pts = 8000, int(8000 * start)
            container.mux(sound.encode(silence))
    return path


def write_transport(path: pathlib.Path, count: int, begin: float) -> pathlib.Path:
    """Ten pictures of `greys` a second and as much of a tone, which begin at `begin` seconds."""
    with av.open(str(path), "w", format="mpegts") as container:
        pictures = container.add_stream("mpeg2video", rate=10)
        pictures.height, pictures.width, pictures.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        sound = container.add_stream("mp2", rate=48_000, layout="mono")
        tone = np.sin(np.arange(4_800 * count) / 10) * 10_000
        first = round(begin * 10)
        for number, grey in enumerate(greys(count)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="rgb24")
            picture.pts = first + number
            container.mux(pictures.encode(picture))
            part = tone[None, 4_800 * number : 4_800 * (number + 1)].astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
            frame.sample_rate, frame.pts = 48_000, 4_800 * (first + number)
            container.mux(sound.encode(frame))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    return path
