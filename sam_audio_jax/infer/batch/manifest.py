"""The manifest of a batch run: a JSON object a line, each with a recording and its prompts."""

import dataclasses
import os
import pathlib
from typing import Any

from sam_audio_jax.errors import UserError
from sam_audio_jax.files import iter_jsonl
from sam_audio_jax.infer.inputs import check_track, parse_spans
from sam_audio_jax.separator.prompts import Span

KEYS = ("id", "audio", "text", "spans", "track", "video", "mask")
FILES = ("audio", "video", "mask")
LONGEST_ID = 200  # bytes; file names of at most 255 bytes begin with it


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


def read_manifest(path: pathlib.Path) -> list[Entry]:
    """Reads and checks every line; the files that it names are opened later.

    Raises UserError, which names the line, if one is malformed or has the id of another.
    """
    if not path.is_file():
        raise UserError(f"no manifest at {path}")
    entries: list[Entry] = []
    line_of: dict[str, int] = {}  # id -> number of its line
    for number, fields in iter_jsonl(path):
        entry = _parse(fields, f"{path.name} line {number}", path.parent)
        if entry.id in line_of:
            raise UserError(
                f"{path.name} line {number}: id {entry.id!r} is that of line {line_of[entry.id]}"
            )
        line_of[entry.id] = number
        entries.append(entry)
    if not entries:
        raise UserError(f"manifest {path} is empty")
    return entries


def _parse(fields: Any, where: str, folder: pathlib.Path) -> Entry:
    """Returns the entry of one line; `where` names it in errors, `folder` holds the manifest."""
    if not isinstance(fields, dict):
        raise UserError(f"{where} must be an object like {{'id': 'a', 'audio': 'a.wav'}}")
    unknown = [key for key in fields if key not in KEYS]
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)}")
    for key in ("id", *FILES):
        value = fields.get(key)
        optional = key not in ("id", "audio")
        if not ((optional and value is None) or (isinstance(value, str) and value)):
            raise UserError(f"{where}: {key} must be a string, got {value!r}")
    if fields.get("mask") and not fields.get("video"):
        raise UserError(f"{where} has a mask but no video that it is of")
    name, text = fields["id"], fields.get("text")
    too_long = len(os.fsencode(name)) > LONGEST_ID
    if name != os.path.basename(name) or name.startswith(".") or too_long:
        raise UserError(f"{where}: id {name!r} must serve as a file name")
    if not isinstance(text, str | None):
        raise UserError(f"{where}: text must be a string, got {text!r}")
    spans = parse_spans(fields.get("spans") or (), where)
    track = fields.get("track")
    if track is not None:
        check_track(track, where)
    video, mask = (folder / fields[key] if fields.get(key) else None for key in ("video", "mask"))
    return Entry(name, folder / fields["audio"], text, spans, track, video, mask, fields)
