"""Decoding with FFmpeg (PyAV), packet by packet: a damaged packet costs its moment only."""

import dataclasses
import io
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error
import av.stream
import numpy as np
from av.codec.context import Flags2
from jaxtyping import Float32

from sam_audio_jax.audio import flac
from sam_audio_jax.audio.timeline import LEAST_S, LONGEST_S, Piece
from sam_audio_jax.errors import UnusableError, UserError

# Containers that store the time of each packet; in others packets simply follow each other.
TIMED = {"asf", "avi", "flv", "gxf", "live_flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut"}
TIMED |= {"ogg", "rm", "wtv"}
RESTARTING = {"mpegts", "mpeg", "ogg"}  # whose clock may jump
STATED = {"aiff", "au", "avi", "caf", "flv", "mov", "w64", "wav"}  # length of a track in the header
FULL_SCALE = {"u8": 128.0, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1, "dbl": 1}
PLANES = {"u8p": "u1", "s16p": "i2", "s32p": "i4", "s64p": "i8", "fltp": "f4", "dblp": "f8"}
DURATION = re.compile(r"(\d+):(\d\d):(\d\d\.?\d*)")
MOST_ERRORS = 1000  # of the demuxer, without a packet between them


@dataclasses.dataclass
class Decoded:
    """The pieces of one audio track and what the container says about it."""

    pieces: list[Piece]
    start_s: float = math.nan  # where the recording begins by the container's clock; NaN: no clock
    end_s: float = 0.0  # where it ends, by the header; 0: unknown
    restarts: bool = False
    padded: bool = False  # `end_s` is exact: what comes after it is the encoder's padding
    notes: list[str] = dataclasses.field(default_factory=list)


def url(path: pathlib.Path) -> str:
    """Returns a name that FFmpeg takes for a file, whatever colons are in it."""
    return f"file:{path}"


def decode(source: pathlib.Path | io.BytesIO, name: str, track: int | None = None) -> Decoded:
    """Decodes a file, or a part of one in memory; `track` counts its audio tracks from 1.

    Raises UserError, which names the file, if it cannot be opened or has no such track.
    """
    try:
        with opened(source) as container:
            stream, notes = choose_track(container, name, track)
            return _decode(container, stream, notes)
    except UserError:
        raise
    except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
        raise UnusableError(f"{name} cannot be decoded as sound: {reason(error)}") from None


def opened(source: pathlib.Path | io.BytesIO) -> Any:
    if not isinstance(source, pathlib.Path):
        return av.open(source)
    try:
        str(source).encode()
    except UnicodeEncodeError:  # a name in another encoding, which PyAV cannot pass on
        return av.open(source.open("rb"))
    return av.open(url(source), options={"protocol_whitelist": "file,crypto,data"})


def reason(error: Exception) -> str:
    """Returns FFmpeg's own message, without its number and the path."""
    if isinstance(error, av.error.EOFError):
        return "the file ends before the sound begins"
    if isinstance(error, av.error.InvalidDataError):
        return "its data are damaged, or of no known format"
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def choose_track(container: Any, name: str, track: int | None = None) -> tuple[Any, list[str]]:
    """Returns the audio stream that a player plays, or track number `track`; and a note on others.

    A player takes the track that is marked as default, else the one of the highest bit rate.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise UnusableError(f"{name} has no audio track", "no sound")
    if track is not None:
        if not 1 <= track <= len(tracks):
            raise UserError(f"{name} has no audio track {track}; it has {_list(tracks)}")
        return tracks[track - 1], []
    best = container.streams.best("audio") or tracks[0]
    if len(tracks) == 1:
        return best, []
    return best, [
        f"has {len(tracks)} audio tracks ({_list(tracks)}): track {tracks.index(best) + 1} is "
        "used, as players do; `track` names another"
    ]


def _list(tracks: list[Any]) -> str:
    words = []
    for number, stream in enumerate(tracks, 1):
        context = stream.codec_context
        known = [stream.metadata.get("language"), stream.metadata.get("title")]
        known += [context.name, context.layout.name] if context else ["unknown codec"]
        words.append(f"{number}: {' '.join(str(word) for word in known if word)}")
    return ", ".join(words)


def clock_start(container: Any, sound_s: float) -> float:
    """Returns where a player's clock begins, on that of the container.

    It begins with the picture, or with the sound (at `sound_s`) where that is earlier or, up to
    rounding, at the same time.
    """
    pictures = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams.video
        if stream.start_time is not None and moves(stream)
    ]
    late_s = sound_s - min(pictures, default=sound_s)
    return sound_s - late_s if LEAST_S < late_s < LONGEST_S else sound_s


def moves(stream: Any) -> bool:
    """Returns whether a video stream is more than the cover picture of a song."""
    return not stream.disposition & av.stream.Disposition.attached_pic


def _decode(container: Any, stream: Any, notes: list[str]) -> Decoded:
    if stream.codec_context is None:
        raise ValueError("its audio track has an unknown codec")
    kinds = set(container.format.name.split(","))
    if "caf" in kinds and stream.codec_context.name == "alac":
        # FFmpeg takes what the last packet lacks to a full one away from it once more.
        stream.codec_context.flags2 |= Flags2.skip_manual
    # FLAC's frames have their own positions; FFmpeg takes those of Ogg's first page for 0.
    is_flac = "flac" in kinds or ("ogg" in kinds and stream.codec_context.name == "flac")
    by_position = is_flac and not container.streams.video
    block = 0  # samples of a FLAC's first frame

    def time_of(packet: Any, frame: Any, number: int) -> float:
        """Returns when a packet's frame of that number sounds; NaN: nothing says it."""
        if kinds & TIMED and frame.pts is not None and not by_position:
            return float(frame.pts * frame.time_base)
        if not by_position or number:
            return math.nan
        nonlocal block
        block = block or (flac.frame_position(bytes(packet)[:16], 1) or (0, 0))[1]
        position = flac.frame_position(bytes(packet)[:16], block)
        return position[0] / frame.sample_rate if position else math.nan

    pieces, damaged = _pieces(container, stream, time_of)
    if damaged:
        count = f"{len(damaged)} damaged packets" if len(damaged) > 1 else "a damaged packet"
        notes.append(f"has {count}, at {damaged[0]:.2f} s{' and later' * (len(damaged) > 1)}")
    found = Decoded(pieces, restarts=bool(kinds & RESTARTING), notes=notes)
    first = next((piece.time_s for piece in pieces if math.isfinite(piece.time_s)), math.nan)
    if kinds & TIMED and math.isfinite(first):
        found.start_s = clock_start(container, first)
    found.end_s = _stated_end(container, stream, kinds)
    found.padded = "mov" in kinds
    return found


def _pieces(
    container: Any, stream: Any, time_of: Callable[[Any, Any, int], float]
) -> tuple[list[Piece], list[float]]:
    """Returns what is decoded, and at which second packets are damaged; their place is silent."""
    pieces: list[Piece] = []
    damaged: list[float] = []
    done_s, whole = 0.0, 0
    for packet in read_packets(container, stream):
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError):
            if packet.size:
                damaged.append(done_s)
            silence = _silence(packet, pieces[-1]) if pieces else None
            if silence is not None:
                pieces.append(silence)
                done_s += silence.seconds
            continue
        for number, frame in enumerate(frames):
            if frame.samples and frame.sample_rate:
                time_s = time_of(packet, frame, number)
                pieces.append(Piece(to_float(frame), frame.sample_rate, time_s))
                done_s, whole = done_s + pieces[-1].seconds, len(pieces)
    return pieces[:whole], damaged  # no silence behind the last packet that is whole


def _silence(packet: Any, before: Piece) -> Piece | None:
    """Returns silence as long as a packet says that it is, in the format of the piece before it."""
    length_s = float((packet.duration or 0) * packet.time_base) if packet.time_base else 0.0
    count = round(length_s * before.sample_rate)
    if not 0 < count < LONGEST_S * before.sample_rate:
        return None
    return Piece(np.zeros((len(before.samples), count), np.float32), before.sample_rate)


def _stated_end(container: Any, stream: Any, kinds: set[str]) -> float:
    """Returns where the track ends by the header; 0 if it does not say, or FFmpeg estimates it."""
    start_s = float((stream.start_time or 0) * stream.time_base)
    if kinds & STATED and stream.duration:
        return start_s + float(stream.duration * stream.time_base)
    if end_s := tagged_end(stream):
        return end_s
    alone = not container.streams.video and kinds & {"asf", "matroska", "flv"}
    return max(0.0, start_s) + container.duration / 1e6 if alone and container.duration else 0.0


def tagged_end(stream: Any) -> float:
    """Returns where a track of Matroska ends by its tags; 0 if they do not say."""
    for key, text in stream.metadata.items():  # hours:minutes:seconds
        if key.startswith("DURATION") and (match := DURATION.fullmatch(text)):
            hours, minutes, seconds = map(float, match.groups())
            return 3600 * hours + 60 * minutes + seconds
    return 0.0


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the packets; goes on after an error of the demuxer as long as packets follow."""
    errors = 0
    while errors < MOST_ERRORS:
        try:
            for packet in container.demux(stream):
                errors = 0
                yield packet
            return
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError):
            errors += 1


def to_float(frame: Any) -> Float32[np.ndarray, "channels samples"]:
    """Returns the samples of a frame with full scale 1.0; integers up to 24 bits are exact."""
    name = frame.format.name
    if name in PLANES:  # PyAV counts more planes than there are from 8 channels on, and reads them
        planes = frame.planes[: frame.layout.nb_channels]
        dtype, count = PLANES[name], frame.samples
        samples = np.stack([np.frombuffer(plane, dtype, count) for plane in planes])
    else:
        samples = frame.to_ndarray().reshape(frame.samples, -1).T
    scale = FULL_SCALE[name.removesuffix("p")]
    if name.startswith("u8"):
        return (samples.astype(np.float32) - 128) / 128
    if scale == 1:
        return np.ascontiguousarray(samples, np.float32)
    return samples.astype(np.float32) * np.float32(1 / scale)
