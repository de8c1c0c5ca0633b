"""Memory that was freed: a training keeps it, inference in little memory gives it back."""

import ctypes
import os
import sys
from typing import Any

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Lets glibc keep what the steps free, instead of giving it back to the kernel.

    XLA on a CPU allocates the temporaries of each step anew. By default glibc maps such large
    blocks one by one and unmaps them when they are freed, so that each step pays for the clearing
    of the same pages: a fifth of the time of a small model. Call it before threads begin to
    compute. It does nothing without glibc, or where the environment has a setting of its own.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return
    for parameter, value in (
        (_ARENA_MAX, 1),  # other arenas are mapped themselves
        (_MMAP_MAX, 0),
        (_TRIM_THRESHOLD, 2**31 - 1),
        (_TOP_PAD, 2**28),
    ):
        mallopt(parameter, value)


def release_freed() -> None:
    """Gives memory that was freed back to the system: glibc keeps much of what XLA frees."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Any:
    """A function of glibc; None on other systems."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
