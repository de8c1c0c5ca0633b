"""The frames of an MPEG audio file (MP2, MP3), with the count that encoders leave in the first."""

from sam_audio_jax.audio.file_parts import Bytes, Part

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
KBITS = {  # (MPEG 1, layer) -> bit rates
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
TAGS = (b"TAG", b"APE", b"LYR", b"ID3")  # of players, behind the sound


def parts(data: Bytes) -> list[Part]:
    """Returns the file as one part; none if it does not begin with frames of MPEG audio."""
    position = after_id3(data)
    frame = _frame(data[position : position + 4])
    if frame is None:
        return []
    rate, channels, samples, length = frame
    first = bytes(data[position : position + length])
    stated = _stated_frames(first)
    count, same = 0, True
    while (frame := _frame(data[position : position + 4])) is not None:
        if position + frame[3] > len(data):
            break
        another = count and _stated_frames(bytes(data[position : position + 64])) is not None
        same = same and frame[:3] == (rate, channels, samples) and not another
        count += 1
        position += frame[3]
    count -= stated is not None  # the frame with the count is silent
    rest = bytes(data[position:])
    ends = not rest.strip(b"\0") or (rest[:3] in TAGS and not _has_frames(rest))
    return [
        Part(
            start=0,
            stop=len(data),
            whole=same and ends and stated in (None, count),
            sample_rate=rate,
            channels=channels,
            samples=count * samples if stated is None else None,
            stated=max(0, stated * samples - _padding(first)) if stated else None,
        )
    ]


def after_id3(data: Bytes) -> int:
    """Returns where the sound begins, behind the ID3v2 tags of players."""
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        a, b, c, d = data[position + 6 : position + 10]
        position += 10 + (a << 21 | b << 14 | c << 7 | d)
    return position


def _frame(head: bytes) -> tuple[int, int, int, int] | None:
    """Returns rate, channels, samples and bytes of a frame by its header; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    rates, known = RATES.get(version), KBITS.get((version == 3, layer))
    if rates is None or known is None or rate == 3 or not 0 < kbits < 15:
        return None
    samples = 1152 if version == 3 or layer == 2 else 576
    length = samples * 125 * known[kbits - 1] // rates[rate] + (head[2] >> 1 & 1)
    return rates[rate], 1 if head[3] >> 6 == 3 else 2, samples, length


def _has_frames(data: bytes) -> bool:
    """Returns whether three frames follow each other somewhere: another file was joined on."""
    start = data.find(b"\xff")
    while start >= 0:
        position, count = start, 0
        while count < 3 and (frame := _frame(data[position : position + 4])) is not None:
            position, count = position + frame[3], count + 1
        if count == 3:
            return True
        start = data.find(b"\xff", start + 1)
    return False


def _padding(frame: bytes) -> int:
    """Returns how many samples the encoder added before and after the sound, by a frame with a
    count of LAME's; 0: it does not say.
    """
    position = max(frame.find(name, 4, 48) for name in (b"Xing", b"Info"))
    if position < 0:
        return 0
    flags = frame[position + 7]
    position += 8 + sum(size for bit, size in enumerate((4, 4, 100, 4)) if flags >> bit & 1)
    both = int.from_bytes(frame[position + 21 : position + 24], "big")  # 12 bits each
    return (both >> 12) + (both & 0xFFF)


def _stated_frames(frame: bytes) -> int | None:
    """Returns how many frames follow, by the first of them; 0: it does not say, None: no count."""
    for name in (b"Xing", b"Info"):
        if (position := frame.find(name, 4, 48)) >= 0:
            has_frames = frame[position + 7] & 1
            return int.from_bytes(frame[position + 8 : position + 12], "big") if has_frames else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None
