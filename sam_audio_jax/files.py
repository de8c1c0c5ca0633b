"""Files and folders that appear whole or not at all, JSON, JSON lines.

Everything is written beside its destination and renamed onto it, so that a reader, a killed
process or a full disk never meet half a file. `remove_parts` clears what killed writers left.
JSON lines that users write are read by `iter_lines`.
"""

import codecs
import contextlib
import errno
import io
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from sam_audio_jax.errors import UserError, shown

PART = ".part"  # in the name of what is being written
LONGEST_NAME = 255  # bytes of the name of a file, in most file systems
LONGEST_ID = 200  # bytes; file names of at most 255 bytes begin with it
SPACES = " \t\r\n"  # of JSON
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


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; it becomes `path` on success and is removed on failure.

    The suffix is kept, because writers of sound and pictures choose the format by it. Parent
    folders are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """An empty folder to fill; it becomes `path` on success, else it is removed.

    `path` may be an empty folder. With `overwrite` one that is not empty is replaced as well; it
    stays if that fails. Else raises `UserError` at once when `path` holds something, and `OSError`
    at the end when another process has made it meanwhile. A folder that cannot be renamed (a mount
    point, a link, the working directory) stays, and the new files are moved into it one by one.
    """
    path = pathlib.Path(path)
    if not overwrite:
        check_new_folder(path)
    stays = path.is_dir() and _cannot_be_renamed(path)
    if not stays:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path.resolve() / "folder" if stays else path)
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
        if any(PART not in entry.name for entry in path.iterdir()):
            raise UserError(f"{name} {path} exists already: give the path of a new folder".strip())
    elif os.path.lexists(path):
        raise UserError(f"{name} {path} exists already and is no folder".strip())


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
        probe = _beside(found / "probe")
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
    old = _beside(path)
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


def remove_parts(folder: str | os.PathLike, *, older_than_s: float = 0.0) -> None:
    """Removes unfinished files of writers that were killed; other processes may do it as well."""
    for part in pathlib.Path(folder).glob(f".*{PART}*"):
        with contextlib.suppress(FileNotFoundError):
            if part.is_file() and time.time() - part.stat().st_mtime >= older_than_s:
                part.unlink()


def _beside(path: pathlib.Path) -> pathlib.Path:
    """A new hidden name in the same folder, cut where it would be longer than a name can be."""
    end = os.fsencode(f".{uuid.uuid4().hex[:8]}{PART}{path.suffix}")
    stem = os.fsencode(f".{path.stem}")[: LONGEST_NAME - len(end)]
    return path.with_name(os.fsdecode(stem + end))


def read_json(path: str | os.PathLike) -> Any:
    """Raises `UserError` when the file is missing, unreadable or no JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} cannot be read as JSON: {first_line(error)}") from error


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold an object, not {shown(value)}")
    return value


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


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = 1) -> None:
    """Writes the file whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def check_format(path: str | os.PathLike, values: Mapping[str, Any], newest: int) -> None:
    """Raises `UserError` when the `format` number in a JSON file is above `newest`.

    A file without the number was written before there was one and has the format 1.
    """
    number = values.get("format", 1)
    if number not in range(1, newest + 1):
        raise UserError(
            f"{path} has format {number!r}, this version reads 1 to {newest}: update sam-audio-jax"
        )


def read_jsonl(path: str | os.PathLike, *, skip_torn: bool = False) -> list[Any]:
    """The values of a file with one JSON value a line; no file holds no lines.

    With `skip_torn`, for files that processes append to, lines that are not JSON are left out: a
    kill cuts a line short. Else such a line is a `UserError`.
    """
    return [value for _, value in iter_jsonl(path, skip_torn=skip_torn)]


def iter_jsonl(path: str | os.PathLike, *, skip_torn: bool = False) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, value) as `read_jsonl` reads them, holding one line at once."""
    with contextlib.suppress(FileNotFoundError), pathlib.Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                if skip_torn:
                    continue
                reason = first_line(error)
                raise UserError(f"{path} line {number} is not JSON: {reason}") from None
            yield number, value


def iter_lines(path: str | os.PathLike) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, value) of JSON lines that a user has written by any program.

    UTF-8 or, with or without a byte order mark, UTF-16 and UTF-32; lines end with a newline, with
    or without a carriage return. The value of a line that is no JSON is the `UserError` that says
    why, so that callers choose whether it ends their work. Raises `UserError` for a file that is
    missing, cannot be read or is in no such encoding.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no manifest at {path}" if not path.is_dir() else f"{path} is a folder")
    encoding = "UTF-8"
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
            file.seek(0)
            # As text a file of another encoding ends at its first fault; bytes have lines.
            as_bytes = encoding.startswith("utf-8")
            lines = file if as_bytes else io.TextIOWrapper(file, encoding, newline="\n")
            for number, line in enumerate(lines, 1):
                if not _is_blank(line):
                    yield number, _parse_line(line, path, number)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no {encoding}: {error.reason}; save it as UTF-8") from None


def _is_blank(line: bytes | str) -> bool:
    """Whether a line holds nothing but JSON's spaces, or the mark of the byte order."""
    if isinstance(line, bytes):
        return not line.removeprefix(codecs.BOM_UTF8).strip(SPACES.encode())
    return not line.removeprefix("\ufeff").strip(SPACES)


def read_lines(path: str | os.PathLike) -> list[tuple[int, Any]]:
    """The lines of `iter_lines`; raises `UserError` for the first one that is no JSON."""
    lines = []
    for number, value in iter_lines(path):
        if isinstance(value, UserError):
            raise value
        lines.append((number, value))
    return lines


def _parse_line(line: bytes | str, path: pathlib.Path, number: int) -> Any:
    """The value of one line, or the `UserError` that says why it has none."""
    where = f"{path} line {number}"
    try:
        text = line.decode("utf-8-sig") if isinstance(line, bytes) else line.removeprefix("\ufeff")
        return _STRICT.decode(text.strip(SPACES))
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start + 1}"
        return UserError(f"{where} is not UTF-8 ({byte}): save the file as UTF-8")
    except RecursionError:
        return UserError(f"{where} is not JSON that can be read: it is nested too deep")
    except (ValueError, MemoryError) as error:
        return UserError(f"{where} is not JSON: {first_line(error)}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; raises `ValueError` for a key that is there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return values


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def read_jsonl_from(path: str | os.PathLike, offset: int) -> tuple[list[Any], int]:
    """The values of the finished lines after byte `offset`, and the offset after those lines.

    For files to which other processes append. Lines that are not JSON are left out.
    """
    values = []
    with pathlib.Path(path).open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            with contextlib.suppress(ValueError):
                values.append(json.loads(line))
    return values, offset


def append_jsonl(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Appends lines, which are on the disk when this returns.

    A line that a kill has cut short is ended first, so that it does not spoil the next one.
    """
    lines = "".join(json.dumps(value) + "\n" for value in values).encode()
    with pathlib.Path(path).open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)
        os.fsync(file.fileno())


def write_jsonl(path: str | os.PathLike, values: Iterable[Any]) -> int:
    """Writes the file whole or not at all; returns the number of lines."""
    count = 0
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(_json_line(value) + "\n")
            count += 1
    return count


def _json_line(value: Any) -> str:
    """JSON as people read it; escaped if UTF-8 cannot hold it, as some names of files."""
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


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


def describe(error: BaseException) -> str:
    """An error in one line, with its type unless it was written for users."""
    return str(error) if isinstance(error, UserError) else _typed(error)


def _typed(error: BaseException) -> str:
    kind, text = type(error).__name__, first_line(error)
    return kind if text == kind else f"{kind}: {text}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
