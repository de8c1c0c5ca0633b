"""Locks that end with their process, however it ends; a file system without them allows everything.

They are those of flock(2).
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import IO

from sam_audio_jax.errors import UserError
from sam_audio_jax.files.whole import STALE_S, remove_parts


def locked(file: IO[str] | int, *, shared: bool = False) -> bool:
    """Whether this process now has the lock of a file, alone or `shared` with others."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def writing_to(folder: pathlib.Path, *, writer: int, writers: int) -> Iterator[None]:
    """A part of a run in which this process writes to a folder, which is made.

    It is number `writer` of the `writers` that share the items, or alone. What killed writers left
    unfinished is removed first: all of it, or of others what is too old to be written to. Raises
    UserError where another process works alone in the folder, or any at all if this one is to be
    alone.
    """
    alone = writers == 1
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not locked(handle, shared=not alone):
            raise UserError(
                f"another process is writing to {folder}: wait for its end, choose another folder, "
                "or let several share the items by --processes N --process I"
            )
        remove_parts(folder, older_than_s=0.0 if alone else STALE_S, writer=writer)
        yield
    finally:
        os.close(handle)
