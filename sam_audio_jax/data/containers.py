"""Folders that hold many recordings in few files: ArrayRecord shards, and TFDS data sets.

A folder of shards has a `manifest.jsonl` like any other, whose lines have `path` "." and the number
of their `record`; `00000.arrayrecord` and so on hold the files of sound as they were.
"""

import functools
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from sam_audio_jax import audio
from sam_audio_jax.data.recording import Recording, Song, recording_line, song_line
from sam_audio_jax.errors import UnusableError, UserError, first_line, shown
from sam_audio_jax.files import whole_folder, write_jsonl

SHARDS = "[0-9]*.arrayrecord"
FEATURES = "features.json"  # of a TFDS data set
PATHS = ("video", "mask", "video_features", "image")  # of a recording, besides its sound

Fields = tuple[tuple[str, str], ...]


@runtime_checkable
class Container(Protocol):
    """Sounds by number."""

    def sound(self, record: int) -> audio.Sound: ...


class RecordingShards:
    """The files in ArrayRecord shards."""

    def __init__(self, folder: str):
        """Raises `UserError` for a folder without shards and for a damaged shard."""
        self.folder = folder
        paths = sorted(str(path) for path in pathlib.Path(folder).glob(SHARDS))
        if not paths:
            raise UserError(f"{folder} has no shards NNNNN.arrayrecord")
        try:
            self._source = array_record_data_source.ArrayRecordDataSource(paths)
        except RuntimeError as error:
            raise UserError(f"{folder} has a damaged shard: {first_line(error)}") from None

    def sound(self, record: int) -> audio.Encoded:
        """The bytes of one file. Raises `UnusableError` where they cannot be read."""
        name = f"{self.folder} record {record}"
        if not 0 <= record < len(self._source):
            raise UnusableError(f"{name}: there are {len(self._source)}", "no file")
        try:
            return audio.Encoded(self._source[record], name)
        except RuntimeError as error:
            raise UnusableError(f"{name}: {first_line(error)}") from None


@functools.lru_cache(maxsize=32)
def open_container(folder: str, split: str, fields: Fields) -> Container:
    """The container in a folder; it stays open. `split` and `fields` are for TFDS."""
    if (pathlib.Path(folder) / FEATURES).is_file():
        # Imported here because it takes seconds, which no other command should wait for.
        from sam_audio_jax.data.tfds_source import TfdsSource

        return TfdsSource(folder, split, dict(fields))
    return RecordingShards(folder)


def write_recordings(
    folder: str | os.PathLike,
    recordings: Iterable[Recording],
    per_shard: int = 1_000,
    songs: Iterable[Song] = (),
) -> int:
    """Writes the files of recordings into shards, with a manifest of them; returns their number.

    `songs` are those of the recordings, as `read_source` returns both; they go into songs.jsonl.
    Paths of videos, masks and pictures become absolute: these files stay where they are. Files are
    copied as they are, also those that cannot be decoded. Raises `UserError` if `folder` holds
    something, for an id that two recordings have, for a stem of a song that is not given, and for
    an example of a TFDS data set, which is in a container already.
    """
    lines: list[dict[str, Any]] = []
    song_lines = [song_line(song) for song in dict.fromkeys(map(_alone, songs))]
    stems = {stem["id"] for line in song_lines for stem in line["stems"]}
    seen: set[str] = set()
    with whole_folder(folder) as part:
        writer = None
        for number, recording in enumerate(recordings):
            if recording.id in seen:
                raise UserError(f"two recordings have the id {shown(recording.id)}")
            if recording.song and recording.id not in stems:
                raise UserError(
                    f"{shown(recording.id)} is a stem of the song {shown(recording.song)}, which "
                    "is not among `songs`"
                )
            seen.add(recording.id)
            if number % per_shard == 0:
                if writer is not None:
                    writer.close()
                path = part / f"{number // per_shard:05d}.arrayrecord"
                writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            assert writer is not None
            writer.write(_content(recording))
            lines.append(_line(recording, number))
        if writer is not None:
            writer.close()
        write_jsonl(part / "manifest.jsonl", lines)
        if song_lines:
            write_jsonl(part / "songs.jsonl", song_lines)
    return len(lines)


def _alone(song: Song) -> Song:
    """A song without the number of its part: in shards there is one manifest."""
    return Song(song.name, song.split, song.stems, song.kind)


def _content(recording: Recording) -> bytes:
    """The file of a recording, perhaps out of other shards."""
    if recording.record is None:
        return pathlib.Path(recording.path).read_bytes()
    if (pathlib.Path(recording.path) / FEATURES).is_file():
        raise UserError(f"{shown(recording.id)} is of a TFDS data set, not a file")
    source = open_container(recording.path, recording.split, ())
    assert isinstance(source, RecordingShards)
    return source.sound(recording.record).data


def _line(recording: Recording, record: int) -> dict[str, Any]:
    """The line of a manifest that names one record."""
    line = recording_line(recording)
    line.pop("part", None)
    line |= {name: os.path.abspath(line[name]) for name in PATHS if line.get(name)}
    return line | {"path": ".", "record": record}
