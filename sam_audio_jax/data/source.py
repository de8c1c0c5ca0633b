"""Recordings and songs, read from manifests.

A manifest is a JSONL file with one recording a line, whose fields are those of `Recording`.
"""

import dataclasses
import itertools
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.multitracks import iter_multitracks
from sam_audio_jax.data.recording import LINE, SONG_KINDS, Recording, Song, parse_line
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.errors import UnusableError, UserError, shown
from sam_audio_jax.files import iter_lines, read_lines

log = logging.getLogger(__name__)


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
        recordings += [one] if isinstance(one, Recording) else []
    return recordings


def iter_manifest(
    path: str | os.PathLike, *, unique: bool = True
) -> Iterator[Recording | Song | UnusableError]:
    """Yields the recording of each line, or why there is none, with file and line.

    That is a line that is not JSON, a field that is missing or of the wrong type, an unknown
    category, a missing sound file or, if they are to be `unique`, an id that is used twice. A line
    with a `conversation` becomes one recording of each speaker, and then a `Song` of these. Raises
    `UserError` for a manifest that is missing, empty or in no known encoding.
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
            found = parse_line(line, path.parent, where)
            for one in found if unique else ():
                if isinstance(one, Recording) and one.id in line_of:
                    text = f"{where}: id {shown(one.id)} is also in line {line_of[one.id]}"
                    raise UnusableError(text, "id used twice")
        except UnusableError as error:
            yield error
            continue
        if unique:
            line_of |= {one.id: number for one in found if isinstance(one, Recording)}
        yield from found
    if not number:
        raise UserError(f"{path} has no lines")


def iter_source(
    config: SourceConfig, *, unique: bool = True
) -> Iterator[Recording | Song | UnusableError]:
    """Yields the recordings and songs of all parts of a source, and what cannot be used of it.

    If ids need not be `unique` in a manifest, nothing is kept in memory. Raises `UserError` for a
    part that is missing, and for a split that no part has.
    """
    splits, found, unusable = set(), False, None
    for one in _all_parts(config, unique):
        if isinstance(one, UnusableError):
            unusable = unusable or one
        elif one.split != config.split:
            splits.add(one.split)
            continue
        else:
            found = found or not isinstance(one, Song)
        yield one
    if not found:
        others = f"; there are those of {', '.join(sorted(splits))}" if splits else ""
        reason = f"; the first that cannot be used: {unusable}" if unusable else ""
        raise UserError(f"no recordings with split {config.split!r}{others}{reason}")


def _all_parts(config: SourceConfig, unique: bool) -> Iterator[Recording | Song | UnusableError]:
    """What all parts hold, each thing with the number of its part."""
    folders = [pathlib.Path(path).absolute().parent for path in config.manifests]
    for number, part in enumerate(_parts(config, unique)):
        inside = folders[number] if number < len(folders) else None
        beside = tuple(n for n, one in enumerate(folders) if one == inside and n != number)
        for one in part:
            if isinstance(one, Song):
                yield dataclasses.replace(one, part=number, beside=beside)
            elif isinstance(one, UnusableError) or not number:
                yield one
            else:
                yield dataclasses.replace(one, part=number)


def _parts(
    config: SourceConfig, unique: bool
) -> Iterator[Iterable[Recording | Song | UnusableError]]:
    others = config.multitracks or config.tfds
    for path in config.manifests or (() if others else (embedded(),)):
        yield itertools.chain(iter_manifest(path, unique=unique), _songs_beside(path))
    for root in config.multitracks:
        yield iter_multitracks(root, config.split)
    for folder in config.tfds:
        # Imported here because it takes seconds, which no other source should wait for.
        from sam_audio_jax.data.tfds_source import TfdsSource

        yield TfdsSource(folder, config.split, dict(config.tfds_fields)).recordings()


def read_source(config: SourceConfig) -> tuple[list[Recording], list[Song], Refusals]:
    """The recordings and songs of a source, and what is refused of it: `iter_source`, kept.

    Warns of a sound with two values of `source_id`, which may be mixed with itself. Raises
    `UserError` as `iter_source`, and if nothing of the split can be used.
    """
    recordings, songs, refusals = [], [], Refusals()
    first_of: dict[tuple[Any, ...], Recording] = {}
    differing: list[tuple[Recording, Recording]] = []
    for one in iter_source(config):
        if isinstance(one, UnusableError):
            refusals.add(Refusal(one.reason, str(one)))
        elif isinstance(one, Song):
            songs.append(one)
        else:
            recordings.append(one)
            first = first_of.setdefault((one.path, one.record, one.track, one.channel), one)
            if one.source_id != first.source_id:
                differing.append((one, first))
    if differing:
        one, first = differing[0]
        log.warning(
            "%d recordings have the sound of another one and another source_id, so that a sound "
            "may be mixed with itself: %s has %r, %s has %r",
            *(len(differing), one.id, one.source_id, first.id, first.source_id),
        )
    refusals.check(len(refusals) + len(recordings), 1.0)
    return recordings, songs, refusals


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
    songs = [song for manifest in paths or (embedded(),) for song in _songs_beside(manifest)]
    return [song for song in songs if song.split == split]


def _songs_beside(manifest: str) -> Iterator[Song]:
    path = pathlib.Path(manifest).parent / "songs.jsonl"
    if not path.is_file():
        return
    for number, line in read_objects(path):
        try:
            stems = tuple(stem["id"] for stem in line["stems"])
            kind = line.get("kind", SONG_KINDS[0])
            song = Song(str(line["song"]), line.get("split", "train"), stems, kind)
        except (KeyError, TypeError):
            raise UserError(f"{path} line {number} needs song and stems with ids") from None
        if kind not in SONG_KINDS:
            allowed = " or ".join(SONG_KINDS)
            raise UserError(f"{path} line {number}: kind {shown(kind)} must be {allowed}")
        yield song
