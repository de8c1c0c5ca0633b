"""The links of a chained Ogg stream (RFC 3533), each of which is a recording of its own."""

import dataclasses
import zlib
from collections.abc import Iterator

import numpy as np

from sam_audio_jax.audio.file_parts import Bytes, Part

BEGIN, END = 2, 4  # flags of a page
# Samples at 48 kHz of a frame of Opus, by the upper five bits of its packet (RFC 6716, table 2).
OPUS_FRAMES = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4
LOWER_RATE = 24_000  # Hz, the highest of Opus below 48 kHz
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass(frozen=True)
class _Page:
    start: int
    stop: int
    flags: int
    number: int
    right: bool  # it follows the one before, and its checksum is right


def parts(data: Bytes) -> list[Part]:
    """Returns the links; none if the file is no Ogg or has several streams at once."""
    if data[:4] != b"OggS":
        return []
    links: list[list[_Page]] = []
    for page in _pages(data):
        if not links or page.flags & BEGIN:
            links.append([])
        links[-1].append(page)
    several = any(len(link) == 1 for link in links[:-1])
    if not links or several or not links[0][0].flags & BEGIN:
        return []
    ends = [*(link[0].start for link in links[1:]), len(data)]
    return [_part(data, link, end) for link, end in zip(links, ends, strict=True)]


def _part(data: Bytes, pages: list[_Page], end: int) -> Part:
    first, last = pages[0], pages[-1]
    head = bytes(data[first.start + 28 : first.stop])  # of a page with one packet
    vorbis = head[:7] == b"\x01vorbis"
    # No gain, and no rate that makes soundfile decode at less than Opus's 48 kHz: that of the
    # encoder's input, often 0 for not known (RFC 7845, 5.1).
    rate = int.from_bytes(head[12:16], "little")
    opus = head[:8] == b"OpusHead" and head[16:18] == bytes(2) and rate > LOWER_RATE
    numbers = [page.number for page in pages]
    broken = not (all(page.right for page in pages) and np.all(np.diff(numbers) == 1))
    whole = (vorbis or opus) and not broken and last.stop == end and bool(last.flags & END)
    return Part(
        start=first.start,
        stop=end,
        from_zero=_has_lost_its_beginning(data, pages),
        by_packets=(head[11:12] if vorbis else head[9:10]) > b"\2",
        whole=whole and (vorbis or _begins_at_zero(data, pages)),
        cut_off=not last.flags & END,
    )


def _has_lost_its_beginning(data: Bytes, pages: list[_Page]) -> bool:
    """Returns whether there is damage before or in the first page with sound.

    Page numbers alone that do not follow each other there are those of a radio stream, which
    listeners get from the moment on at which they come.
    """
    for page in pages:
        if not page.right:
            return True
        if _position(data, page) > 0:
            break
    return False


def _position(data: Bytes, page: _Page) -> int:
    """Returns the samples up to the end of a page; 0: there is no sound in it, -1: no end."""
    return int.from_bytes(data[page.start + 6 : page.start + 14], "little", signed=True)


def _begins_at_zero(data: Bytes, pages: list[_Page]) -> bool:
    """Returns whether Opus's first position is the number of samples up to there.

    Where it is larger (a stream that was cut out or recorded live) libsndfile drops no pre-skip.
    """
    for page in pages[1:]:
        position = _position(data, page)
        if position > 0:
            count = _opus_samples(bytes(data[page.start : page.stop]))
            return position == count or (position < count and bool(page.flags & END))
    return False


def _opus_samples(page: bytes) -> int:
    """Returns the samples at 48 kHz of the packets that end in a page which begins with one."""
    table = page[27 : 27 + page[26]]
    begin = end = 27 + len(table)
    count = 0
    for size in table:
        end += size
        if size < 255:
            if packet := page[begin:end]:
                frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
                count += frames * OPUS_FRAMES[packet[0] >> 3]
            begin = end
    return count


def _pages(data: Bytes) -> Iterator[_Page]:
    position = 0
    while (start := data.find(b"OggS", position)) >= 0:
        header = bytes(data[start : start + 27])
        table = bytes(data[start + 27 : start + 27 + header[26]]) if len(header) == 27 else b""
        stop = start + 27 + len(table) + sum(table)
        if len(header) < 27 or stop > len(data):
            return
        page = bytes(data[start:stop])
        right = _checksum(page) == int.from_bytes(page[22:26], "little")
        number = int.from_bytes(header[18:22], "little")
        yield _Page(start, stop, header[5] if right else 0, number, right and start == position)
        position = stop if right else start + 4


def _checksum(page: bytes) -> int:
    """Returns Ogg's CRC-32: that of zlib, with the bits of each byte in the other order."""
    bits = (page[:22] + bytes(4) + page[26:]).translate(REVERSED)
    return int(f"{~zlib.crc32(bits, 0xFFFFFFFF) & 0xFFFFFFFF:032b}"[::-1], 2)
