"""Recordings and songs, read from manifests.

A manifest is a JSONL file with one recording a line, whose fields are those of `Recording`.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from sam_audio_jax.encoders.text_form import find_surrogate, has_words
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import read_lines

CATEGORIES = ("speech", "music", "sfx", "instrument")
# Fields that may be absent or null.
OPTIONAL = ("speaker", "song", "stem", "image", "video", "video_features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One line of a manifest; `path` is resolved, `duration` and `spans` are in seconds."""

    id: str
    path: str
    caption: str
    category: str
    source_id: str
    duration: float
    license: str
    alt_captions: tuple[str, ...] = ()
    split: str = "train"
    speaker: str | None = None
    song: str | None = None
    stem: str | None = None
    image: str | None = None
    video: str | None = None
    video_features: str | None = None  # path of a NumPy file, resolved
    spans: tuple[tuple[float, float], ...] = ()
    stems: tuple[str, ...] = ()
    single: bool | None = None  # whether it holds a single event; None: its caption says so


@dataclasses.dataclass(frozen=True)
class Song:
    """Stems of one excerpt of one piece, by recording id; they sum to its mixture."""

    name: str
    split: str
    stems: tuple[str, ...]


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

    Raises `UserError`, with file and line, for a line that is not JSON, a field that is missing or
    of the wrong type, an unknown category, a missing sound file and an id that is used twice; also
    for an empty manifest.
    """
    path = pathlib.Path(path)
    recordings, seen = [], {}
    for number, line in read_objects(path):
        recording = _recording(line, path, number)
        if recording.id in seen:
            raise UserError(
                f"{path} line {number}: id {shown(recording.id)} is also in line "
                f"{seen[recording.id]}"
            )
        seen[recording.id] = number
        recordings.append(recording)
    return recordings


def _recording(line: dict[str, Any], path: pathlib.Path, number: int) -> Recording:
    where = f"{path} line {number}"

    def field(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = line.get(name, default)
        if value is None and default is None and name in OPTIONAL:
            return None
        if value is None:
            raise UserError(f"{where}: field {name!r} is missing")
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise UserError(f"{where}: field {name!r} must be a {wanted}, not {shown(value)}")
        return value

    sound = path.parent / field("path", str)
    if not os.path.isfile(sound):  # also for names that no file can have
        raise UserError(f"{where}: no sound file at {sound}")
    category = field("category", str)
    if category not in CATEGORIES:
        raise UserError(
            f"{where}: category {shown(category)} must be one of {', '.join(CATEGORIES)}"
        )
    duration = _seconds(field("duration", (int, float)))
    if not duration > 0 or not math.isfinite(duration):
        raise UserError(f"{where}: duration {duration} must be above 0 s")
    alternatives = field("alt_captions", list, [])
    spans = field("spans", list, [])
    try:
        spans = tuple((_seconds(start), _seconds(end)) for start, end in spans)
    except (TypeError, ValueError):
        raise UserError(
            f"{where}: spans must be [[start, end], ...] in seconds, not {shown(spans)}"
        ) from None
    if not all(isinstance(text, str) for text in alternatives):
        raise UserError(f"{where}: alt_captions must be strings, not {shown(alternatives)}")
    if not has_words(field("caption", str)):
        raise UserError(f"{where}: caption is empty")
    features = field("video_features", str)
    if features is not None and not os.path.isfile(path.parent / features):
        raise UserError(f"{where}: no video features at {path.parent / features}")
    for text in (line["caption"], *alternatives):
        if half := find_surrogate(text):
            raise UserError(f"{where}: caption {shown(text)} has half of a character ({half})")
    stems = line.get("stems") or []
    single = line.get("single")
    if not isinstance(single, bool | None):
        raise UserError(f"{where}: single must be true or false, not {shown(single)}")
    return Recording(
        id=field("id", str, str(sound)),
        path=str(sound),
        caption=line["caption"],
        category=category,
        source_id=field("source_id", str),
        duration=duration,
        license=field("license", str, line.get("licence", "unknown")),
        alt_captions=tuple(alternatives),
        split=field("split", str, "train"),
        spans=spans,
        stems=tuple(str(stem) for stem in stems),
        single=single,
        **{name: field(name, str) for name in OPTIONAL}
        | {"video_features": features and str(path.parent / features)},
    )


def _seconds(number: Any) -> float:
    """A number of JSON as seconds; one that is too large for a float is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def load_manifests(paths: Sequence[str], split: str) -> list[Recording]:
    """The recordings of one split of several manifests; without `paths` of the embedded one.

    Raises `UserError` when the split has none.
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
