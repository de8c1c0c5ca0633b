"""Files and folders that appear whole or not at all, JSON, JSON lines.

Everything is written beside its destination and renamed onto it, so that a reader, a killed
process or a full disk never meet half a file. `remove_parts` clears what killed writers left.
"""

import contextlib
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sam_audio_jax.errors import UserError

PART = ".part"  # in the name of what is being written


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
    """An empty folder beside `path` to fill; it becomes `path` on success, else it is removed.

    With `overwrite` an existing folder is replaced by the new one; it stays if that fails. Else
    raises `UserError` at once when `path` exists, and `OSError` at the end when another process has
    made it meanwhile.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already: give the path of a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    part.mkdir()
    old = _beside(path)
    try:
        yield part
        if overwrite and path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_parts(folder: str | os.PathLike, *, older_than_s: float = 0.0) -> None:
    """Removes unfinished files of writers that were killed; other processes may do it as well."""
    for part in pathlib.Path(folder).glob(f".*{PART}*"):
        with contextlib.suppress(FileNotFoundError):
            if part.is_file() and time.time() - part.stat().st_mtime >= older_than_s:
                part.unlink()


def _beside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{PART}{path.suffix}")


def read_json(path: str | os.PathLike) -> Any:
    """Raises `UserError` when the file is missing, unreadable or no JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {first_line(error)}") from error


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
            except ValueError as error:
                if skip_torn:
                    continue
                reason = first_line(error)
                raise UserError(f"{path} line {number} is not JSON: {reason}") from None
            yield number, value


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


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type when it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
