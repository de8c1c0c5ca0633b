"""Recordings and songs, read from manifests.

A manifest is a JSONL file with one recording a line, whose fields are those of `Recording`.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from sam_audio_jax.data.recording import LINE, Recording, Song, parse_recording
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.errors import UnusableError, UserError, shown
from sam_audio_jax.files import iter_lines, read_lines


def embedded() -> str:
    """The manifest that ships inside the package (sam_audio_jax/data/embedded)."""
    return str(pathlib.Path(__file__).parent / "embedded" / "manifest.jsonl")


def read_objects(path: str | os.PathLike) -> list[tuple[int, dict[str, Any]]]:
    """The (line number, object) pairs of a JSONL file that has at least one.

    Raises `UserError`, with file and line, for a missing or empty file and a line of another kind.
    """
    lines = read_lines(path)
    for number, value in lines:
        if not isinstance(value, dict):
            raise UserError(f"{path} line {number} must be an object, not {type(value).__name__}")
    if not lines:
        raise UserError(f"{path} has no lines")
    return lines


def load_manifest(path: str | os.PathLike) -> list[Recording]:
    """Reads and checks a manifest.

    Raises `UserError`, with file and line, for the first line of `iter_manifest` that cannot be
    used; also for an empty manifest.
    """
    recordings = []
    for one in iter_manifest(path):
        if isinstance(one, UserError):
            raise one
        recordings.append(one)
    return recordings


def iter_manifest(path: str | os.PathLike) -> Iterator[Recording | UnusableError]:
    """Yields the recording of each line, or why there is none, with file and line.

    That is a line that is not JSON, a field that is missing or of the wrong type, an unknown
    category, a missing sound file or an id that is used twice. Raises `UserError` for a manifest
    that is missing, empty or in no known encoding.
    """
    path = pathlib.Path(path)
    line_of: dict[str, int] = {}
    number = 0
    for number, line in iter_lines(path):
        where = f"{path} line {number}"
        try:
            if isinstance(line, UserError):
                raise UnusableError(str(line), LINE)
            if not isinstance(line, dict):
                raise UnusableError(f"{where} must be an object, not {type(line).__name__}", LINE)
            recording = parse_recording(line, path.parent, where)
            if recording.id in line_of:
                earlier = line_of[recording.id]
                raise UnusableError(
                    f"{where}: id {shown(recording.id)} is also in line {earlier}", "id used twice"
                )
        except UnusableError as error:
            yield error
            continue
        line_of[recording.id] = number
        yield recording
    if not number:
        raise UserError(f"{path} has no lines")


def read_recordings(paths: Sequence[str], split: str) -> tuple[list[Recording], Refusals]:
    """The recordings of one split of several manifests, and the lines that have none.

    Without `paths` those of the embedded manifest. Raises `UserError` when the split has none.
    """
    chosen, splits, refusals = [], set(), Refusals()
    for path in paths or (embedded(),):
        for one in iter_manifest(path):
            if isinstance(one, UnusableError):
                refusals.add(Refusal(one.reason, str(one)))
            elif one.split == split:
                chosen.append(one)
            else:
                splits.add(one.split)
    if not chosen:
        refusals.check(len(refusals) + len(splits), 1.0)
        raise UserError(
            f"no recordings with split {split!r}; the manifests have {', '.join(sorted(splits))}"
        )
    return chosen, refusals


def load_manifests(paths: Sequence[str], split: str) -> list[Recording]:
    """The recordings of one split of several manifests; without `paths` of the embedded one.

    Raises `UserError` when the split has none, and for any line that cannot be used.
    """
    every = [recording for path in paths or (embedded(),) for recording in load_manifest(path)]
    chosen = [recording for recording in every if recording.split == split]
    if not chosen:
        splits = sorted({recording.split for recording in every})
        raise UserError(
            f"no recordings with split {split!r}; the manifests have {', '.join(splits)}"
        )
    return chosen


def load_songs(paths: Sequence[str], split: str) -> list[Song]:
    """The songs of one split, from the `songs.jsonl` beside each manifest, if there is one."""
    songs = []
    for manifest in paths or (embedded(),):
        path = pathlib.Path(manifest).parent / "songs.jsonl"
        if not path.is_file():
            continue
        for number, line in read_objects(path):
            try:
                stems = tuple(stem["id"] for stem in line["stems"])
                songs.append(Song(str(line["song"]), line.get("split", "train"), stems))
            except (KeyError, TypeError):
                raise UserError(f"{path} line {number} needs song and stems with ids") from None
    return [song for song in songs if song.split == split]
