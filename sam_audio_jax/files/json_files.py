"""JSON and JSON lines; those that users write are read by `iter_lines`."""

import codecs
import contextlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.files.whole import whole_file

SPACES = " \t\r\n"  # of JSON


def read_json(path: str | os.PathLike) -> Any:
    """Raises `UserError` when the file is missing, unreadable or no JSON."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} cannot be read as JSON: {first_line(error)}") from error


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold an object, not {shown(value)}")
    return value


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


def json_differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted name, old value, new value) of what differs in two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from json_differences(f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield name, old, new
