"""The manifest of a batch run: a JSON object a line, each with a recording and its prompts."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import check_file_name, iter_lines
from sam_audio_jax.infer.inputs import (
    check_path,
    check_text,
    check_texts,
    check_track,
    parse_spans,
)
from sam_audio_jax.infer.output import file_names
from sam_audio_jax.separator.prompts import Span

KEYS = ("id", "audio", "text", "spans", "track", "video", "mask", "like")
FILES = ("audio", "video", "mask", "like")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the manifest."""

    id: str
    audio: pathlib.Path
    text: str | None
    spans: tuple[Span, ...]
    track: int | None
    video: pathlib.Path | None
    mask: pathlib.Path | None
    line: dict[str, Any]  # the object as the file has it
    # Several texts with their spans, in place of `text` and `spans`; (): there is one.
    texts: tuple[tuple[str, tuple[Span, ...]], ...] = ()
    like: pathlib.Path | None = None  # an example

    @property
    def prefixes(self) -> list[str]:
        """What the names of its files begin with."""
        if not self.texts:
            return [self.id]
        names = file_names([text for text, _ in self.texts])
        return [self.id, *(f"{self.id}.{name}" for name in names)]


@dataclasses.dataclass(frozen=True)
class BadLine:
    """A line of the manifest that names no item which could be separated."""

    number: int  # of the line, from 1
    id: str | None  # None where it cannot be read
    reason: str


def read_manifest(
    path: pathlib.Path,
    bad_lines: list[BadLine] | None = None,
    *,
    texts: Sequence[str] = (),
    rest: bool = False,
) -> list[Entry]:
    """Reads and checks every line; the files that it names are opened later.

    `texts` are those of lines without a text of their own. With `rest`, which is what no text took,
    a text is a list of one, and every line needs one.
    Raises UserError, which names the line, if one is malformed or has the id of another. With a
    list of `bad_lines` these are appended to it instead, and only a file without any good line is
    an error.
    """
    entries: list[Entry] = []
    bad: list[BadLine] = []
    line_of: dict[str, int] = {}  # id, or beginning of files' names -> number of its line
    for number, fields in iter_lines(path):
        try:
            if isinstance(fields, UserError):
                raise fields
            entry = _parse(fields, f"{path.name} line {number}", path.parent, texts, rest)
            for name in entry.prefixes:
                if name in line_of:
                    what = (
                        f"id {shown(name)} is" if name == entry.id else f"{name!r} begins files as"
                    )
                    raise UserError(
                        f"{path.name} line {number}: {what} that of line {line_of[name]}"
                    )
        except UserError as error:
            if bad_lines is None:
                raise
            name = fields.get("id") if isinstance(fields, dict) else None
            bad.append(BadLine(number, name if isinstance(name, str) else None, str(error)))
            continue
        line_of |= dict.fromkeys(entry.prefixes, number)
        entries.append(entry)
    if not entries:
        raise UserError(bad[0].reason if bad else f"manifest {path} is empty")
    if bad_lines is not None:
        bad_lines += bad
    return entries


def _parse(
    fields: Any, where: str, folder: pathlib.Path, texts: Sequence[str], rest: bool
) -> Entry:
    """Returns the entry of one line; `where` names it in errors, `folder` holds the manifest."""
    if not isinstance(fields, dict):
        raise UserError(f"{where} must be an object like {{'id': 'a', 'audio': 'a.wav'}}")
    unknown = [key for key in fields if key not in KEYS]
    if unknown:
        raise UserError(f"{where}: unknown key {shown(unknown[0])}; allowed: {', '.join(KEYS)}")
    for key in ("id", *FILES):
        value = fields.get(key)
        optional = key not in ("id", "audio")
        if not ((optional and value is None) or (isinstance(value, str) and value)):
            raise UserError(f"{where}: {key} must be a string, got {shown(value)}")
        if value is not None:
            check_path(value, f"{where}: {key}")
    if fields.get("mask") and not fields.get("video"):
        raise UserError(f"{where} has a mask but no video that it is of")
    name, text, spans = fields["id"], fields.get("text"), fields.get("spans")
    check_file_name(name, where)
    several: tuple[tuple[str, tuple[Span, ...]], ...] = ()
    if text is None and texts:
        text = list(texts)
    if rest and text is None:
        raise UserError(f"{where} has no text: the rest is what a text did not take")
    if rest and isinstance(text, str):
        text, spans = [text], None if spans is None else [spans]
    if isinstance(text, list):
        prompts = "texts with a rest" if rest else "a list of texts"
        if fields.get("video"):
            raise UserError(f"{where}: a video prompts one sound, not {prompts}")
        if fields.get("like"):
            raise UserError(f"{where}: an example prompts one sound, not {prompts}")
        several, text, spans = tuple(check_texts(text, spans, where)), None, None
    check_text(text, where)
    spans = parse_spans(spans or (), where)
    track = fields.get("track")
    if track is not None:
        check_track(track, where)
    video, mask, like = (
        folder / fields[key] if fields.get(key) else None for key in ("video", "mask", "like")
    )
    audio = folder / fields["audio"]
    return Entry(name, audio, text, spans, track, video, mask, fields, several, like)
