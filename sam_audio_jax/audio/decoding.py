"""Decoding of sound files: what a player plays, as it plays it, in full and in time.

Where the structure of a file shows that nothing in it is unusual, soundfile decodes it (WAV, FLAC,
Ogg, MP3); FFmpeg (PyAV) decodes everything else, packet by packet.
"""

import contextlib
import dataclasses
import io
import mmap
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from sam_audio_jax.audio import flac, mpeg, ogg, packets, riff, timeline
from sam_audio_jax.audio.clock import LEAST_S, length_note, on_the_clock
from sam_audio_jax.audio.file_parts import Part
from sam_audio_jax.audio.libsndfile import read_length, read_part, read_uncommon
from sam_audio_jax.audio.signal import all_finite
from sam_audio_jax.audio.timeline import Piece
from sam_audio_jax.errors import UnusableError, UserError, shown

RATES = (50, 50_000_000)  # Hz; other sample rates are damage
KINDS = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": stat.S_ISCHR,
    "a disk": stat.S_ISBLK,
}


@dataclasses.dataclass(frozen=True)
class Audio:
    """A decoded file: float32 samples, full scale 1.0."""

    samples: Float32[np.ndarray, "channels samples"]
    sample_rate: int
    notes: tuple[str, ...] = ()  # what a listener should know about the file, each in a line


def check_rate(value: Any) -> int:
    """Returns the sample rate of an array as an int.

    Raises UserError for what is none: among others 16 or 48, which are kHz.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not RATES[0] <= value <= RATES[1] or value != int(value):
        raise UserError(
            f"sample_rate={shown(value)} must be a whole number of Hz from {RATES[0]} to {RATES[1]}"
        )
    return int(value)


def load(path: str | os.PathLike, track: int | None = None) -> Audio:
    """Decodes a sound or video file at its own rate.

    Its samples are on a player's clock, which begins with the file's picture or its sound: holes
    between the time stamps and damaged packets are silent. `track` counts audio tracks from 1; None
    takes the one that players take. Raises UserError if the file is missing or no ordinary file,
    cannot be decoded, has no such track, no samples, or samples that are NaN or infinite; it is an
    UnusableError where there is a reason to count the file under.
    """
    path = check_file(path)
    with _mapped(path) as data:
        found = _parts(data)
        if track not in (None, 1) and found:
            raise UserError(f"{path} has no audio track {track}; it has one")
        if len(found) > 1:
            decoded = _decode_parts(path, data, found)
        else:
            decoded = [_decode_part(path, data, found[0]) if found else _decode(path, track=track)]
    pieces = [piece for some, _ in decoded for piece in some if piece.samples.size]
    notes = [note for _, some in decoded for note in some]
    if not pieces:
        raise UnusableError(f"{path} has no samples", "no samples")
    for piece in pieces:
        if not all_finite(piece.samples):
            raise UnusableError(f"{path} has samples that are NaN or infinite", "not finite")
        if not RATES[0] <= piece.sample_rate <= RATES[1]:
            raise UnusableError(
                f"{path} has a sample rate of {piece.sample_rate} Hz; "
                f"allowed are {RATES[0]} to {RATES[1]}",
                "sample rate",
            )
    piece, note = timeline.join(pieces)
    notes += [note] if note else []
    samples = np.ascontiguousarray(piece.samples)
    return Audio(samples, piece.sample_rate, tuple(f"{path} {note}" for note in notes))


def check_file(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path; raises UserError, at once, if no ordinary file is there."""
    path = pathlib.Path(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL byte
        text = f"no sound file at {path}".replace("\0", "\\0")
        raise UnusableError(text, "no file") from None
    if not stat.S_ISREG(mode):
        kind = next((words for words, matches in KINDS.items() if matches(mode)), "no file")
        raise UnusableError(f"no sound file at {path}, which is {kind}", "no file")
    return path


def header_length(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns samples and sample rate of a file whose structure shows them; None: decode it.

    Raises UserError if no ordinary file is there. The samples of `load` are what counts.
    """
    path = check_file(path)
    with _mapped(path) as data:
        parts = _parts(data)
        if len(parts) != 1 or not parts[0].whole:
            return None
        if parts[0].samples is not None:
            length = parts[0].samples, parts[0].sample_rate
            return length if parts[0].samples else None
        return read_length(path)


@contextlib.contextmanager
def _mapped(path: pathlib.Path) -> Iterator[mmap.mmap | bytes]:
    """Opens a file as bytes that are read when they are looked at."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from None
    with file:
        if not os.fstat(file.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _parts(data: mmap.mmap | bytes) -> list[Part]:
    for kind in (riff, ogg, flac, mpeg):
        if found := kind.parts(data):
            return found
    return []


def _decode_parts(
    path: pathlib.Path, data: mmap.mmap | bytes, parts: list[Part]
) -> list[tuple[list[Piece], list[str]]]:
    """Decodes several recordings in one file; one that cannot be decoded is left out."""
    decoded, lost = [], 0
    for part in parts:
        try:
            decoded.append(_decode_part(path, data, part))
        except UserError:
            lost += 1
    if not decoded:
        return [_decode(path)]
    words = f"; {lost} of them cannot be decoded" if lost else ""
    return [([], [f"is {len(parts)} recordings, one after another{words}"]), *decoded]


def _decode_part(
    path: pathlib.Path, data: mmap.mmap | bytes, part: Part
) -> tuple[list[Piece], list[str]]:
    """Returns what one part of a file holds, and notes on it."""
    alone = (part.start, part.stop) == (0, len(data))
    source = path if alone else io.BytesIO(data[part.start : part.stop])
    piece = read_part(source, part)
    if isinstance(source, io.BytesIO):
        source.seek(0)
    if piece is not None:
        pieces, notes = [piece], []
    else:
        pieces, notes = _decode(path, source, from_zero=part.from_zero)
    there_s = sum(piece.seconds for piece in pieces)
    if part.stated is not None and part.sample_rate and there_s:
        stated_s = part.stated / part.sample_rate
        if abs(stated_s - there_s) > LEAST_S:
            notes = [*notes, length_note(stated_s, there_s)]
    if part.cut_off:
        notes = [*notes, f"has no mark of its end: {there_s:.2f} s are there"]
    return pieces, notes


def _decode(
    path: pathlib.Path,
    source: pathlib.Path | io.BytesIO | None = None,
    track: int | None = None,
    *,
    from_zero: bool = False,
) -> tuple[list[Piece], list[str]]:
    """Decodes a file, or a part of it in memory, by FFmpeg; returns it in pieces of one format.

    A file that FFmpeg does not know may be one of the formats that only soundfile reads.
    """
    try:
        found = packets.decode(path if source is None else source, str(path), track)
    except UserError:
        piece = read_uncommon(path) if source is None and track in (None, 1) else None
        if piece is None:
            raise
        return [piece], []
    return on_the_clock(found, from_zero=from_zero)
