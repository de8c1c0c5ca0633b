"""One recording of a training set: the record that every kind of source yields.

A source (a manifest, shards, a TFDS data set, a folder of multitrack pieces) says what there is in
`Recording`s; where its sound lies is part of the record, so that nothing is decoded before it is
used.
"""

import dataclasses
import functools
import math
import os
import pathlib
from typing import Any

from sam_audio_jax.encoders.text_form import find_surrogate, has_words
from sam_audio_jax.errors import UnusableError, shown

CATEGORIES = ("speech", "music", "sfx", "instrument")
SONG_KINDS = ("song", "conversation")
MOST_LETTERS = 1_000  # of a caption: a phrase has a few words, and this is a page
# Fields that may be absent or null.
OPTIONAL = (
    *("speaker", "song", "stem", "image", "video", "video_features", "mask"),
    *("track", "channel", "record"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One sound with its caption; paths are resolved, `duration` and `spans` are in seconds.

    Its sound is the file at `path`, or one record of a container there (`record`); of that one
    audio track and one channel where they are named, else the channels together.
    """

    id: str
    path: str  # of a file of sound or video, or of a folder of records
    caption: str
    category: str  # one of CATEGORIES
    source_id: str  # the original that it is from: a mixture never has one source twice
    duration: float
    license: str
    alt_captions: tuple[str, ...] = ()
    split: str = "train"
    record: int | None = None  # number in the folder of records at `path`; None: a file
    track: int | None = None  # audio track of the file, from 1; None: the one that players take
    channel: int | None = None  # from 1; None: all, mixed down
    speaker: str | None = None
    song: str | None = None
    stem: str | None = None
    image: str | None = None
    video: str | None = None
    mask: str | None = None  # of the sounding object in the video
    video_features: str | None = None  # path of a NumPy file, resolved
    spans: tuple[tuple[float, float], ...] = ()  # when it sounds, in order
    stems: tuple[str, ...] = ()
    single: bool | None = None  # whether it holds a single event; None: its caption says so
    part: int = 0  # of its source, a manifest or a folder: ids are unique in one part alone


@dataclasses.dataclass(frozen=True)
class Song:
    """Recordings of one excerpt of one piece, or of one conversation, by their ids.

    They sum to what was played: each in turn can be a target, the others its residual.
    """

    name: str
    split: str
    stems: tuple[str, ...]
    kind: str = "song"  # or "conversation": one recording of each speaker
    part: int = 0  # of its source, which its recordings are of, too
    beside: tuple[int, ...] = ()  # other parts, manifests of the same folder, that may have stems


def parse_line(line: dict[str, Any], folder: pathlib.Path, where: str) -> list[Recording | Song]:
    """What one object of a manifest stands for: a recording, or a conversation.

    A `conversation` lists, for each channel, the fields of its speaker that differ from those of
    the line: `caption`, `alt_captions`, `speaker`. Raises `UnusableError` as `parse_recording`.
    """
    speakers = line.get("conversation")
    if speakers is None:
        return [parse_recording(line, folder, where)]
    if not isinstance(speakers, list) or not all(isinstance(one, dict) for one in speakers):
        raise UnusableError(f"{where}: conversation must list an object a channel", LINE)
    name = str(line.get("id", line.get("path")))
    common = {"category": "speech"} | line | {"song": name}
    found = []
    for channel, speaker in enumerate(speakers, 1):
        fields = common | speaker | {"channel": channel, "id": f"{name}#{channel}"}
        found.append(parse_recording(fields, folder, f"{where} channel {channel}"))
    if len(found) < 2:
        raise UnusableError(f"{where}: a conversation has two channels or more", LINE)
    return [*found, Song(name, found[0].split, tuple(one.id for one in found), "conversation")]


def parse_recording(line: dict[str, Any], folder: pathlib.Path, where: str) -> Recording:
    """The recording of one object of a manifest; paths are relative to `folder`.

    Raises `UnusableError`, which begins with `where`, for a field that is missing, of the wrong
    type or without sense, and for a file that is not there.
    """
    field = functools.partial(_field, line, where)
    sound = folder / field("path", str)
    record = field("record", int)
    if not (os.path.isfile if record is None else os.path.isdir)(sound):  # for any name
        raise UnusableError(f"{where}: no sound file at {sound}", "no file")
    category = field("category", str)
    if category not in CATEGORIES:
        allowed = ", ".join(CATEGORIES)
        raise UnusableError(f"{where}: category {shown(category)} must be one of {allowed}", LINE)
    duration = _seconds(field("duration", (int, float)))
    if not duration > 0 or not math.isfinite(duration):
        raise UnusableError(f"{where}: duration {duration} must be above 0 s", LINE)
    features = field("video_features", str)
    if features is not None and not os.path.isfile(folder / features):
        raise UnusableError(f"{where}: no video features at {folder / features}", "no file")
    single = line.get("single")
    if not isinstance(single, bool | None):
        raise UnusableError(f"{where}: single must be true or false, not {shown(single)}", LINE)
    optional: dict[str, Any] = {
        name: _counted(field(name, int), name, where) for name in ("track", "channel")
    }
    optional |= {name: field(name, str) for name in ("speaker", "song", "stem", "image")}
    for name in ("video", "mask", "video_features"):
        path = field(name, str)
        optional[name] = path and str(folder / path)
    return Recording(
        id=field("id", str, str(sound)),
        path=str(sound),
        caption=_caption(field("caption", str), where),
        category=category,
        source_id=field("source_id", str),
        duration=duration,
        license=field("license", str, line.get("licence", "unknown")),
        alt_captions=_alternatives(field("alt_captions", list, []), where),
        split=field("split", str, "train"),
        record=record,
        spans=_spans(field("spans", list, []), where),
        stems=tuple(str(stem) for stem in line.get("stems") or []),
        single=single,
        **optional,
    )


def recording_line(recording: Recording) -> dict[str, Any]:
    """A recording as a line of a manifest, without the fields that are their defaults."""
    line = {}
    for field in dataclasses.fields(recording):
        value = getattr(recording, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            line[field.name] = list(value) if isinstance(value, tuple) else value
    if "spans" in line:
        line["spans"] = [list(span) for span in line["spans"]]
    return line


def song_line(song: Song) -> dict[str, Any]:
    """A song as a line of songs.jsonl."""
    line: dict[str, Any] = {"song": song.name, "split": song.split}
    kind = {} if song.kind == SONG_KINDS[0] else {"kind": song.kind}
    return line | kind | {"stems": [{"id": stem} for stem in song.stems]}


LINE = "malformed line"  # the reason of what is wrong in it, but for its caption and files


def _field(
    line: dict[str, Any],
    where: str,
    name: str,
    kind: type | tuple[type, ...],
    default: Any = None,
) -> Any:
    """A field of a line, of a kind, or its default."""
    value = line.get(name, default)
    if value is None and default is None and name in OPTIONAL:
        return None
    if value is None:
        reason = "no caption" if name == "caption" else LINE
        raise UnusableError(f"{where}: field {name!r} is missing", reason)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = kind.__name__ if isinstance(kind, type) else "number"
        raise UnusableError(f"{where}: field {name!r} must be a {wanted}, not {shown(value)}", LINE)
    return value


def _caption(text: str, where: str) -> str:
    if not has_words(text):
        raise UnusableError(f"{where}: caption is empty", "no caption")
    return _text(text, where)


def _alternatives(texts: list[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(text, str) for text in texts):
        raise UnusableError(f"{where}: alt_captions must be strings, not {shown(texts)}", LINE)
    return tuple(_text(text, where) for text in texts)


def _text(text: str, where: str) -> str:
    if half := find_surrogate(text):
        raise UnusableError(
            f"{where}: caption {shown(text)} has half of a character ({half})", LINE
        )
    if len(text) > MOST_LETTERS:
        raise UnusableError(
            f"{where}: caption of {len(text)} characters must be a phrase, {MOST_LETTERS} at most",
            "long caption",
        )
    return text


def _spans(spans: list[Any], where: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = sorted((_seconds(start), _seconds(end)) for start, end in spans)
    except (TypeError, ValueError):
        raise UnusableError(
            f"{where}: spans must be [[start, end], ...] in seconds, not {shown(spans)}", LINE
        ) from None
    if not all(start < end for start, end in pairs):
        raise UnusableError(f"{where}: spans {shown(spans)} must have start < end", "spans")
    return tuple(pairs)


def _counted(number: int | None, name: str, where: str) -> int | None:
    if number is not None and number < 1:
        raise UnusableError(f"{where}: {name} {number} must count from 1", LINE)
    return number


def _seconds(number: Any) -> float:
    """A number of JSON as seconds; one that is too large for a float is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf
