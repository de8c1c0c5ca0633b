"""The sound of a run: the table of its recordings, and their waves."""

import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.recording import Recording, Song
from sam_audio_jax.data.recording_table import (
    LONE,
    Numbers,
    RecordingTable,
    make_table,
    open_table,
    write_table,
)
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.data.source import embedded, iter_source, read_source
from sam_audio_jax.data.streamed import StreamedWaves
from sam_audio_jax.data.waves import Waves, cache_root, open_waves
from sam_audio_jax.errors import UnusableError, UserError, shown
from sam_audio_jax.files import check_writable, read_json

TABLE_VERSION = 4  # part of the name of a table on disk: raise it when what is in one changes

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Library:
    """The recordings of a source by number, and their waves at one rate. Picklable."""

    table: RecordingTable
    waves: Waves | StreamedWaves


def open_library(source: SourceConfig, sample_rate: int) -> Library:
    """Opens a source for sound at `sample_rate`; the first time it is decoded, or listed.

    What cannot be used is counted by reason and named in the log. Raises `UserError` if that is
    everything, or more than `source.most_bad` allows.
    """
    if source.streamed or source.tfds:
        table = _stored_table(source)
        return Library(table, StreamedWaves(table, sample_rate, source))
    recordings, songs, refusals = read_source(source)
    waves = open_waves(recordings, sample_rate, source.most_bad, refusals)
    usable = np.array([waves.length(number) > 0 for number in range(len(recordings))])
    table = make_table(recordings, songs, usable)
    _name_lone_stems(table)
    return Library(table, waves)


def _name_lone_stems(table: RecordingTable) -> None:
    """Logs how many stems no example has, and the first of them."""
    lone = table.numbers(LONE)
    if len(lone):
        first = table.recordings[int(lone[0])]
        log.warning(
            "%d recordings are stems of no song with two usable stems, the first %s of song %s: "
            "they are in no mixture of a song, nor used as music (songs are listed in the "
            "songs.jsonl beside a manifest)",
            *(len(lone), shown(first.id), shown(first.song)),
        )


def _stored_table(source: SourceConfig) -> RecordingTable:
    """The table of a source on disk, which is written when it is not there yet."""
    folder = cache_root() / f"table-{_stamp(source)}"
    if not (folder / "index.json").is_file():
        check_writable(folder.parent, "the cache folder (SAM_AUDIO_CACHE)")
        try:
            _write(source, folder)
        except (OSError, UserError):
            if not (folder / "index.json").is_file():  # else another process has made it
                raise
    index = read_json(folder / "index.json")
    refusals = Refusals.from_json(index["refused"])
    refusals.check(index["recordings"] + len(refusals), source.most_bad)
    table = open_table(folder)
    log.info("%d recordings in %s", len(table.recordings), folder)
    _name_lone_stems(table)
    return table


def _write(source: SourceConfig, folder: pathlib.Path) -> None:
    refusals, songs, count = Refusals(), [], 0

    def recordings() -> Iterator[Recording]:
        nonlocal count
        for one in iter_source(source, unique=False):
            if isinstance(one, UnusableError):
                refusals.add(Refusal(one.reason, str(one)))
            elif isinstance(one, Song):
                songs.append(one)
            else:
                count += 1
                yield one

    def notes(twice: Numbers) -> dict[str, Any]:
        for number in twice:
            text = f"recording {number} of the source: its id is that of an earlier one"
            refusals.add(Refusal("id used twice", text))
        used = count - len(twice)
        refusals.check(used + len(refusals), 1.0)  # no table of nothing is kept
        return {"recordings": used, "refused": refusals.as_json()}

    write_table(folder, recordings(), lambda: songs, notes)


def _stamp(source: SourceConfig) -> str:
    """Stands for the source and the state of its files, as far as their folders show it."""
    stamp = hashlib.sha256(f"{TABLE_VERSION} {source.split} {source.tfds_fields}".encode())
    others = source.multitracks or source.tfds
    paths = [pathlib.Path(path) for path in source.manifests or (() if others else (embedded(),))]
    paths += [path.parent / "songs.jsonl" for path in paths]
    for root in source.multitracks:
        paths += sorted(pathlib.Path(root).rglob("*"))
    paths += [pathlib.Path(folder) / "dataset_info.json" for folder in source.tfds]
    for path in paths:
        stamp.update(f"{path.absolute()}|".encode("utf-8", "surrogateescape"))
        if os.path.exists(path):
            status = os.stat(path)
            stamp.update(f"{status.st_size}|{status.st_mtime_ns}|".encode())
    return stamp.hexdigest()[:16]
