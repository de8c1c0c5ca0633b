"""Places to write to: tried before work that takes time, and what an error says about one."""

import contextlib
import errno
import os
import pathlib
import time

from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.files.whole import LONGEST_NAME, PART, name_beside

LONGEST_ID = 200  # bytes; file names of at most 255 bytes begin with it
PROBE = "probe"  # name of the file by which a folder is tried
PROBE_S = 10.0  # after which it is of a process that was killed
PROBE_BYTES = 4_096  # written to find out whether a folder takes files
# Errors of a place to write to that its user can mend.
PLACE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EBUSY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EFBIG,
    errno.EMFILE,
)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # after which nothing can be written


def check_writable(path: str | os.PathLike, name: str = "") -> None:
    """Raises `UserError` unless files can be made in `path`, a folder that may still be missing.

    It is found out by writing a hidden file where the folder is or will be, and removing it; a
    command calls this before work that takes time. `name` is the option that names the path.
    """
    where = f"{name} {path}".strip()
    if not str(path):
        raise UserError(f"{where} is empty: name a folder".strip())
    path = pathlib.Path(path)
    try:
        names = [os.fsencode(name) for name in path.parts]
        if any(len(name) > LONGEST_NAME for name in names):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if any(b"\0" in name for name in names):
            raise ValueError("null byte in the name")
        if path.is_symlink() and not path.exists():
            raise UserError(f"{where} is a link to {os.readlink(path)}, which does not exist")
        found = path.absolute()
        while not os.path.lexists(found):
            found = found.parent
        if not found.is_dir():
            kind = "a file" if found.is_file() else "no folder"
            raise UserError(f"{where} cannot be a folder: {found} is {kind}")
        _remove_old_probes(found)
        probe = name_beside(found / PROBE)
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"cannot write to {where}: {reason or first_line(error)}") from None


def _remove_old_probes(folder: pathlib.Path) -> None:
    for probe in folder.glob(f".{PROBE}.*{PART}*"):
        with contextlib.suppress(OSError):
            if time.time() - probe.stat().st_mtime > PROBE_S:
                probe.unlink()


def check_file_name(name: str, where: str) -> None:
    """Raises `UserError` for a text that cannot serve as the name of a file, or of many."""
    size = len(os.fsencode(name)) if _is_encodable(name) else 0
    if size > LONGEST_ID:
        raise UserError(
            f"{where}: id of {size} bytes must serve as a file name; it may have {LONGEST_ID}"
        )
    if not size or name != os.path.basename(name) or name.startswith(".") or "\0" in name:
        raise UserError(f"{where}: id {shown(name)} must serve as a file name")


def _is_encodable(name: str) -> bool:
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def place_error(error: BaseException) -> str:
    """What an error says about a place that cannot be written to; "" for any other error.

    Libraries that write for us wrap the error of the system, or keep its words alone.
    """
    seen: BaseException | None = error
    while seen is not None:
        numbers = PLACE_ERRORS if seen is error else DISK_ERRORS
        if isinstance(seen, OSError) and seen.errno in numbers:
            name = f": {seen.filename}" if seen.filename else ""
            return f"{seen.strerror}{name}"
        if any(os.strerror(number) in str(seen) for number in DISK_ERRORS):
            return first_line(seen)
        seen = seen.__cause__ or seen.__context__
    return ""


def disk_is_full(error: BaseException) -> bool:
    """Whether nothing more can be written after this error, whatever the file."""
    return isinstance(error, OSError) and error.errno in DISK_ERRORS
