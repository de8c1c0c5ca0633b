"""Uploads: streamed to a file of our own name, and looked at before anything decodes them whole.

The sender's file name is never a path: it is shown, and the download is called after it. Formats
that name other files (playlists) are refused, so that no upload reads what it did not bring.
"""

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import av
import av.error
import soundfile

from sam_audio_jax import audio
from sam_audio_jax.audio.libsndfile import ERRORS
from sam_audio_jax.audio.packets import choose_track, moves, read_packets, reason, url
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs

# FFmpeg's formats that hold sound in the file itself. HLS, DASH, SDP and concat are lists of other
# files, which FFmpeg would open.
FORMATS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "eac3", "flac", "flv"),
    *("gsm", "matroska", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "oga", "ogg", "tak", "tta"),
    *("voc", "w64", "wav", "wv", "xwma"),
)
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
LONGEST_NAME = 80  # characters of a file name that is shown
GOODBYE_S = 10.0  # in which what is left of a refused upload is read and dropped


class TooLargeError(UserError):
    """An upload that has more bytes than allowed."""


class StalledError(UserError):
    """An upload whose sender has stopped sending."""


def shown_name(name: str | None) -> str:
    """The sender's name of a file, as it is shown: no folders, one line, not too long."""
    plain = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(c if c.isprintable() else " " for c in plain)
    plain = " ".join(plain.split()).strip(".") or "recording"
    if len(plain) <= LONGEST_NAME:
        return plain
    stem, dot, suffix = plain.rpartition(".")
    end = f"{dot}{suffix}" if stem and len(suffix) <= 5 else ""
    return plain[: LONGEST_NAME - 1 - len(end)] + "…" + end


def own_suffix(name: str) -> str:
    """The end of our name of a file: one of a few of videos, else none."""
    suffix = pathlib.PurePosixPath(name).suffix.lower()
    return suffix if suffix in VIDEO_SUFFIXES else ""


def check_declared(size: str | None, limits: Limits) -> None:
    """Raises TooLargeError for an upload that says itself that it is too large."""
    if size is not None and (not size.isdecimal() or int(size[:20]) > limits.max_bytes):
        raise _too_large(limits)


async def receive(stream: AsyncIterator[bytes], path: pathlib.Path, limits: Limits) -> int:
    """Writes an upload to a file, piece by piece; returns its bytes.

    Raises TooLargeError as soon as it has too many, StalledError if nothing comes for a while, and
    UserError for one without any.
    """
    size, pieces = 0, stream.__aiter__()
    with path.open("xb") as file:
        while True:
            try:
                async with asyncio.timeout(limits.idle_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise StalledError(f"nothing came for {limits.idle_s:g} s: try again") from None
            size += len(piece)
            if size > limits.max_bytes:
                raise _too_large(limits)
            file.write(piece)
    if not size:
        raise UserError("the file is empty: choose a sound or video file")
    return size


async def drop(stream: AsyncIterator[bytes]) -> None:
    """Reads what is left of a refused upload, for a while: a sender that is cut off in the middle
    reports a broken connection in place of the answer.
    """
    until, pieces = time.monotonic() + GOODBYE_S, stream.__aiter__()
    # RuntimeError: the stream was at its end already.
    with contextlib.suppress(StopAsyncIteration, TimeoutError, RuntimeError):
        while time.monotonic() < until:
            async with asyncio.timeout(1.0):
                await anext(pieces)


def _too_large(limits: Limits) -> TooLargeError:
    return TooLargeError(f"the file is too large: this page takes up to {limits.max_mb:g} MB")


def load(path: pathlib.Path, name: str, limits: Limits) -> audio.Audio:
    """Decodes an upload that is short enough. Errors and notes call it `name`.

    Raises UserError as `separate` does, and for a recording that is longer than allowed.
    """
    try:
        _measure(path, name, limits)
        recording = inputs.read(str(path))
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from None
    seconds = recording.samples.shape[-1] / recording.sample_rate
    _check_length(name, seconds, recording.samples.size, limits)
    notes = tuple(note.replace(str(path), name) for note in recording.notes)
    return audio.Audio(recording.samples, recording.sample_rate, notes)


def _measure(path: pathlib.Path, name: str, limits: Limits) -> None:
    """Raises UserError for what is no sound, or more than allowed; frames are dropped at once.

    What a header says is not believed: a small file may decode to more than the memory holds.
    """
    try:
        with _opened(path) as container:
            stream, _ = choose_track(container, name)
            _count(container, stream, name, limits)
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError) as error:
        try:
            header = soundfile.info(path)
        except ERRORS:
            raise UserError(f"{name} cannot be decoded as sound: {reason(error)}") from None
        values = header.frames * header.channels
        _check_length(name, header.frames / header.samplerate, values, limits)


def _opened(path: pathlib.Path) -> Any:
    """An upload as a container of PyAV, which opens no other file."""
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    return av.open(url(path), options=options)


def _count(container: Any, stream: Any, name: str, limits: Limits) -> None:
    """Decodes a track and counts; raises UserError as soon as it is too much."""
    seconds, values = 0.0, 0
    first = last = None
    for packet in read_packets(container, stream):
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue  # damaged: `audio.load` says so
        for frame in frames:
            if not frame.sample_rate:
                continue
            seconds += frame.samples / frame.sample_rate
            values += frame.samples * frame.layout.nb_channels
            if frame.time is not None:
                first = frame.time if first is None else min(first, frame.time)
                last = frame.time if last is None else max(last, frame.time)
        stamped = 0.0 if first is None or last is None else last - first
        _check_length(name, max(seconds, stamped), values, limits)


def _check_length(name: str, seconds: float, values: int, limits: Limits) -> None:
    if seconds > limits.max_s + 0.5:
        raise UserError(f"{name} is too long: this page takes up to {limits.max_minutes:g} minutes")
    if values > limits.most_values:
        raise UserError(
            f"{name} has too many channels or too high a sample rate for its length: this page "
            f"takes {limits.max_minutes:g} minutes of stereo at 96 kHz, or as much of another form"
        )


def has_video(path: pathlib.Path) -> bool:
    """Whether a file shows a moving picture."""
    try:
        with _opened(path) as container:
            return any(moves(stream) and stream.codec_context for stream in container.streams.video)
    except (av.error.FFmpegError, ValueError, OSError):
        return False
