"""Decoding with soundfile (libsndfile) of files whose structure shows that nothing is unusual."""

import hashlib
import io
import pathlib
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32

from sam_audio_jax.audio.file_parts import Part
from sam_audio_jax.audio.timeline import Piece

ERRORS = (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OverflowError)
# Formats that FFmpeg reads as well: where it gives up, there is damage.
COMMON = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "MPEG"}


def read_part(source: pathlib.Path | io.BytesIO, part: Part) -> Piece | None:
    """Returns the sound of a part; None if soundfile does not give what a player plays."""
    if not (part.whole or part.subtype) or part.by_packets:
        return None
    bare: dict[str, Any] = {}
    if part.subtype:
        bare = {"format": "RAW", "subtype": part.subtype, "endian": "LITTLE"}
        bare |= {"samplerate": part.sample_rate, "channels": part.channels}
    try:
        with soundfile.SoundFile(source, **bare) as file:
            if part.md5:
                return _read_checked(file, part)
            samples = file.read(dtype="float32", always_2d=True)
            # Of an MP3 without a count soundfile knows an estimate, and reads no more.
            there = file.frames if part.samples is None else part.samples
            return Piece(samples.T, file.samplerate) if len(samples) == there else None
    except ERRORS:
        return None


def _read_checked(file: soundfile.SoundFile, part: Part) -> Piece | None:
    """Returns samples of 16 or 24 bits whose checksum is the one in the header, else None."""
    if file.subtype == "PCM_16":
        whole = file.read(dtype="int16", always_2d=True)
        stored, scale = whole, 2.0**-15
    elif file.subtype == "PCM_24":
        whole = file.read(dtype="int32", always_2d=True)
        stored, scale = whole.view(np.uint8).reshape(-1, 4)[:, 1:], 2.0**-31
    else:
        return None
    checksum = hashlib.md5(np.ascontiguousarray(stored).data, usedforsecurity=False)
    if checksum.digest() != part.md5:
        return None
    return Piece(_scaled(whole.T, scale), file.samplerate)


def _scaled(whole: np.ndarray, scale: float) -> Float32[np.ndarray, "channels samples"]:
    return np.multiply(whole, np.float32(scale), dtype=np.float32, order="C")


def read_uncommon(path: pathlib.Path) -> Piece | None:
    """Returns the sound of a file in a format that only soundfile reads, else None."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.format in COMMON:
                return None
            return Piece(file.read(dtype="float32", always_2d=True).T, file.samplerate)
    except ERRORS:
        return None


def read_length(path: pathlib.Path) -> tuple[int, int] | None:
    """Returns samples and sample rate as soundfile finds them in a whole file."""
    try:
        header = soundfile.info(path)
    except ERRORS:
        return None
    return (header.frames, header.samplerate) if header.frames > 0 else None
