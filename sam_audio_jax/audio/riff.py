"""The parts of a WAV file (RIFF, RF64): https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE."""

import struct
from collections.abc import Iterator, Mapping

from sam_audio_jax.audio.file_parts import Bytes, Part

SUBTYPES = {
    **{(1, bits): f"PCM_{'U8' if bits == 8 else bits}" for bits in (8, 16, 24, 32)},
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
EXTENSIBLE = 0xFFFE
UNKNOWN = 0xFFFFFFFF  # a size that a pipe could not fill in, or that of RF64
RIFF = (b"RIFF", b"RF64", b"BW64")
TAGS = (b"TAG", b"ID3", b"APE")  # of players, behind the sound
LEAST_S = 0.05  # fewer bytes behind the samples are no sound
# DTS sound inside of a WAV, for which players look: its synchronisation words.
DTS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8")


def parts(data: Bytes) -> list[Part]:
    """Returns the recordings of a file; none if it is no WAV of plain samples."""
    if data[:4] == b"RIFX":  # numbers begin with their highest byte: FFmpeg takes them for others
        return [Part(start=0, stop=len(data))]
    found, start = [], 0
    while data[start : start + 4] in RIFF and data[start + 8 : start + 12] == b"WAVE":
        begin = start
        chunks = dict(_chunks(data, start + 12))
        form = _format(data, chunks.get(b"fmt "))
        if form is None or b"data" not in chunks or _is_dts(data, chunks[b"data"]):
            return []
        part, start = _part(data, start, form, chunks)
        found.append(part)
        while data[start : start + 4] == b"data":  # more samples of the same recording
            part, start = _part(data, start, form, chunks | {b"data": start + 8})
            found.append(part)
        if start <= begin:
            break
    return found


def _chunks(data: Bytes, position: int) -> Iterator[tuple[bytes, int]]:
    """Yields the names of chunks and where their contents begin, until that of the samples."""
    while position + 8 <= len(data):
        name = bytes(data[position : position + 4])
        yield name, position + 8
        if name == b"data":
            return
        length = _number(data, position + 4)
        position += 8 + length + length % 2


def _is_dts(data: Bytes, begin: int) -> bool:
    first = bytes(data[begin : begin + 16_384])
    return any(word in first for word in DTS)


def _number(data: Bytes, position: int, size: int = 4) -> int:
    return int.from_bytes(data[position : position + size], "little")


def _format(data: Bytes, begin: int | None) -> tuple[str, int, int, int, bool] | None:
    """Returns subtype, rate, channels and bytes of all channels' samples, of plain samples.

    The last value says whether samples have no more bytes than their bits need: decoders read
    others as if they had.
    """
    if begin is None or begin + 16 > len(data):
        return None
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", data[begin : begin + 16])
    if tag == EXTENSIBLE:
        tag = _number(data, begin + 24, 2)
    if not (rate and channels) or block % channels:
        return None
    subtype = SUBTYPES.get((tag, 8 * block // channels))
    tight = block == channels * ((bits + 7) // 8)
    return (subtype, rate, channels, block, tight) if subtype and bits <= 8 * block else None


def _part(
    data: Bytes, start: int, form: tuple[str, int, int, int, bool], chunks: Mapping[bytes, int]
) -> tuple[Part, int]:
    """Returns the recording whose RIFF header is at `start`, and where the next one may begin.

    A size of the samples that is wrong is put right: 0 and 2^32 - 1 are those of a pipe, others
    those of a program that was stopped before it wrote the last ones.
    """
    subtype, rate, channels, block, tight = form
    begin = chunks[b"data"]
    stated, rest = _number(data, begin - 4), len(data) - begin
    if stated == UNKNOWN and b"ds64" in chunks:
        stated = _number(data, chunks[b"ds64"] + 8, 8)
    after = begin + stated + stated % 2
    right = stated <= rest and _ends(data, after, stated, rate * block)
    length = stated if right else rest
    after = _next_recording(data, after) if right else len(data)
    plain = tight and right and start == 0 and after == len(data)
    part = Part(
        start=0 if plain else begin,
        stop=len(data) if plain else begin + length // block * block,
        sample_rate=rate,
        channels=channels,
        samples=length // block,
        stated=stated // block,
        subtype=None if plain else subtype,
    )
    return part, after


def _ends(data: Bytes, after: int, stated: int, bytes_per_second: int) -> bool:
    """Returns whether the samples end at byte `after`: with the file, or before something else."""
    rest = len(data) - after
    if rest <= 0 or _is_chunk(data, after) or data[after : after + 3] in TAGS:
        return True
    return bool(stated) and (
        rest < LEAST_S * bytes_per_second or not bytes(data[after:]).strip(b"\0")
    )


def _is_chunk(data: Bytes, position: int) -> bool:
    name = bytes(data[position : position + 4])
    return (
        len(name) == 4
        and all(32 <= letter < 127 for letter in name)
        and position + 8 + _number(data, position + 4) <= len(data) + 1
    )


def _next_recording(data: Bytes, position: int) -> int:
    """Returns where more samples or another RIFF begin behind other chunks; else the file's end."""
    more = (*RIFF, b"data")
    while _is_chunk(data, position) and data[position : position + 4] not in more:
        length = _number(data, position + 4)
        position += 8 + length + length % 2
    return position if data[position : position + 4] in more else len(data)
