"""The streams of a file of FLACs, one after another (RFC 9639)."""

from sam_audio_jax.audio.file_parts import Bytes, Part

# A stream begins with its name and the header of its first block: STREAMINFO, 34 bytes.
MARKS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
LONGEST_FRAME = 1 << 20  # bytes, of any that encoders write


def parts(data: Bytes) -> list[Part]:
    """Returns the streams; none if the file is no FLAC."""
    if data[:8] not in MARKS:
        return []
    starts = sorted(_find_all(data, MARKS[0]) + _find_all(data, MARKS[1]))
    ends = [*starts[1:], len(data)]
    return [_part(data, start, stop) for start, stop in zip(starts, ends, strict=True)]


def _find_all(data: Bytes, mark: bytes) -> list[int]:
    found, position = [], data.find(mark)
    while position >= 0:
        found.append(position)
        position = data.find(mark, position + 1)
    return found


def _part(data: Bytes, start: int, stop: int) -> Part:
    info = bytes(data[start + 8 : start + 42])
    if len(info) < 34:
        return Part(start=start, stop=stop, whole=False)
    numbers = int.from_bytes(info[10:18], "big")  # 20 bits rate, 3 channels, 5 depth, 36 samples
    samples = numbers & (1 << 36) - 1
    fixed_size = int.from_bytes(info[2:4], "big")  # the largest block: that of a fixed size
    whole = samples > 0 and any(info[18:34]) and _ends_with(data, start, stop, samples, fixed_size)
    return Part(
        start=start,
        stop=stop,
        whole=whole,
        sample_rate=numbers >> 44,
        channels=(numbers >> 41 & 7) + 1,
        samples=samples if whole else None,
        stated=samples or None,
        from_zero=whole,
        md5=info[18:34],
    )


def _ends_with(data: Bytes, start: int, stop: int, samples: int, fixed_size: int) -> bool:
    """Returns whether there is a frame near the end whose last sample is the stream's last."""
    tail = bytes(data[max(start, stop - LONGEST_FRAME) : stop])
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        frame = frame_position(tail[position : position + 16], fixed_size)
        if frame is not None:
            return sum(frame) == samples
    return False


def frame_position(head: bytes, fixed_size: int) -> tuple[int, int] | None:
    """Returns the first sample of a frame and its samples, by its header; None if it is none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] not in (0xF8, 0xF9):
        return None
    length = max(1, 8 - (head[4] ^ 0xFF).bit_length())  # of a number coded like UTF-8
    size_code, rate_code = head[2] >> 4, head[2] & 15
    position = 4 + length
    number = head[4] & (0x7F >> length if length > 1 else 0x7F)
    for byte in head[5:position]:
        number = number << 6 | byte & 0x3F
    sizes = {
        1: 192,
        **{n: 576 << n - 2 for n in range(2, 6)},
        **{n: 256 << n - 8 for n in range(8, 16)},
    }
    if size_code in (6, 7):
        extra = size_code - 5
        size = int.from_bytes(head[position : position + extra], "big") + 1
        position += extra
    else:
        size = sizes.get(size_code, 0)
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not size or len(head) <= position or _crc8(head[:position]) != head[position]:
        return None
    return (number if head[1] & 1 else number * fixed_size), size


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value
