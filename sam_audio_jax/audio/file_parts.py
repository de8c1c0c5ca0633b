"""What the bytes of a sound file say about its parts, beside what its first header says.

A file may consist of several recordings, one after another (`cat a.flac b.flac`, a chained Ogg
stream), and a header may state another length than there is. `riff`, `ogg`, `flac` and `mpeg` walk
over the structure of a file, without decoding, and return its parts.
"""

import dataclasses
from typing import Any

Bytes = Any  # a memory map, or bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One recording in a file: bytes `start` to `stop`."""

    start: int
    stop: int
    whole: bool = True  # all its bytes are as they were written: any decoder gives the same
    sample_rate: int = 0  # 0: only decoding shows it
    channels: int = 0
    samples: int | None = None  # that are there; None: only decoding shows it
    stated: int | None = None  # samples by the header; None: it does not say
    cut_off: bool = False  # the mark of its end is missing
    from_zero: bool = False  # its time stamps count from its beginning, which may be lost
    by_packets: bool = False  # soundfile orders its channels in another way than players do
    md5: bytes = b""  # of its samples; empty: it has none
    subtype: str | None = None  # bare samples without a header, of this subtype of soundfile
