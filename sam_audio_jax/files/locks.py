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
from sam_audio_jax.process_rank import ProcessRank


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
def writing_to(folder: pathlib.Path, rank: ProcessRank) -> Iterator[None]:
    """A part of a run in which this process writes to a folder, which is made.

    It does so alone, or it is one of several that share the items. What killed writers left
    unfinished is removed first: all of it, or of others what is too old to be written to. Raises
    UserError where another process works alone in the folder, or any at all if this one is to be
    alone.
    """
    alone = rank.count == 1
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not locked(handle, shared=not alone):
            raise UserError(
                f"another process is writing to {folder}: wait for its end, choose another folder, "
                "or let several share the items by --processes N --process I"
            )
        remove_parts(folder, older_than_s=0.0 if alone else STALE_S, writer=rank.index)
        yield
    finally:
        os.close(handle)
