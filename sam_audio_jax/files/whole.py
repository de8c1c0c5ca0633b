"""Files and folders that appear whole or not at all.

Everything is written beside its destination and renamed onto it, so that a reader, a killed
process or a full disk never meet half a file. `remove_parts` clears what killed writers left.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import re
import shutil
import time
import uuid
from collections.abc import Iterator

from sam_audio_jax.errors import UserError

PART = ".part"  # in the name of what is being written
STALE_S = 3_600.0  # the age of a part that no process can still be writing
LONGEST_NAME = 255  # bytes of the name of a file, in most file systems


def is_part(name: str) -> bool:
    """Whether a file's name is one of what is being written, or was by a writer that was killed.

    Those of others, as `film.mp4.part` of a download, are not hidden.
    """
    return name.startswith(".") and PART in name


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; it becomes `path` on success and is removed on failure.

    The suffix is kept, because writers of sound and pictures choose the format by it. Parent
    folders are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = name_beside(path)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """An empty folder to fill; it becomes `path` on success, else it is removed.

    `path` may be an empty folder. With `overwrite` one that is not empty is replaced as well; it
    stays if that fails. Else raises `UserError` at once when `path` holds something, and `OSError`
    at the end when another process has made it meanwhile. A folder that cannot be renamed (a mount
    point, a link, the working directory) stays, and the new files are moved into it one by one.
    What a writer of the same folder left that was killed an hour ago is removed.
    """
    path = pathlib.Path(path)
    if not overwrite:
        check_new_folder(path)
    remove_parts_of(path, older_than_s=STALE_S)
    stays = path.is_dir() and _cannot_be_renamed(path)
    if not stays:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = name_beside(path.resolve() / "folder" if stays else path)
    part.mkdir()
    try:
        yield part
        if stays:
            _move_into(part, path)
        elif overwrite and path.exists():
            _replace(part, path)
        else:
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new_folder(path: str | os.PathLike, name: str = "") -> None:
    """Raises `UserError` unless `path` is missing or an empty folder; `name` is its option's."""
    path = pathlib.Path(path)
    if path.is_dir():
        if not all(is_part(entry.name) for entry in path.iterdir()):
            raise UserError(f"{name} {path} exists already: give the path of a new folder".strip())
    elif os.path.lexists(path):
        raise UserError(f"{name} {path} exists already and is no folder".strip())


def _cannot_be_renamed(path: pathlib.Path) -> bool:
    """Whether an existing folder has to stay where it is."""
    real = path.resolve()
    working = pathlib.Path.cwd()
    return (
        path.is_symlink()
        or os.path.ismount(path)
        or real == working
        or real in working.parents
        or not os.access(real.parent, os.W_OK | os.X_OK)
    )


def _replace(part: pathlib.Path, path: pathlib.Path) -> None:
    """Renames `part` to the existing folder `path`, which is removed; it stays if that fails."""
    old = name_beside(path)
    try:
        path.rename(old)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES):
            raise
        _move_into(part, path)  # mounted from the same disk, which only a rename finds out
        return
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move_into(part: pathlib.Path, path: pathlib.Path) -> None:
    """Moves what is in `part` into the folder `path` and removes what else is there."""
    new = {entry.name for entry in part.iterdir()}
    for entry in sorted(part.iterdir()):
        target = path / entry.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        shutil.move(entry, target)
    for entry in path.iterdir():
        if entry.name in new or entry.name == part.name:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_parts(
    folder: str | os.PathLike, *, older_than_s: float = 0.0, writer: int | None = None
) -> None:
    """Removes unfinished files and folders of writers that were killed.

    Where several processes write to the folder, those that are younger than `older_than_s` stay,
    but for the parts of the process `writer` (`name_writer`), which is this one, started again.
    """
    for part in pathlib.Path(folder).glob(f".*{PART}*"):
        own = writer is not None and f"{PART}{_writer_mark(writer)}" in part.name
        with contextlib.suppress(FileNotFoundError):
            if own or time.time() - part.stat().st_mtime >= older_than_s:
                _remove(part)


def remove_parts_of(path: str | os.PathLike, *, older_than_s: float = 0.0) -> None:
    """Removes what killed writers of the folder `path` left beside it, and of no other folder.

    Another may be written at the same time whose name is alike, as `lr0.002` is `lr0.001`. Folders
    into which something was written in the last `older_than_s` stay.
    """
    path = pathlib.Path(path)
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    own = re.compile(rf"\.{stem}\.[0-9a-f]{{8}}{re.escape(PART)}(-\d+-)?{suffix}")
    if not os.access(path.parent, os.R_OK):  # is missing, or may be written to and not listed
        return
    for part in path.parent.iterdir():
        left = own.fullmatch(part.name) and part.is_dir()
        if left and time.time() - _last_change(part) >= older_than_s:
            _remove(part)


def _last_change(folder: pathlib.Path) -> float:
    """When the folder or something in it was last written, as `time.time()` counts."""
    last = 0.0
    for place, _, names in os.walk(folder):
        for name in ("", *names):
            with contextlib.suppress(FileNotFoundError):
                last = max(last, os.stat(os.path.join(place, name)).st_mtime)
    return last


def _remove(part: pathlib.Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink()


def name_writer(index: int) -> None:
    """Marks what this process writes from now on as parts of process `index`, by its name."""
    global _mark
    _mark = _writer_mark(index)


_mark = ""  # of this process in the names of its parts


def _writer_mark(index: int) -> str:
    return f"-{index}-"


def name_beside(path: pathlib.Path) -> pathlib.Path:
    """A new hidden name in the same folder, cut where it would be longer than a name can be."""
    end = os.fsencode(f".{uuid.uuid4().hex[:8]}{PART}{_mark}{path.suffix}")
    stem = os.fsencode(f".{path.stem}")[: LONGEST_NAME - len(end)]
    return path.with_name(os.fsdecode(stem + end))
