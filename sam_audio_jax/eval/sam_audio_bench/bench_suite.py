"""SAM Audio-Bench as a suite: which rows and recordings there are, in which settings they are run.

Nothing is decoded here, so that each process knows all of the work at once.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.prompting import VIDEO, PromptedMixture, SolverChoice
from sam_audio_jax.eval.recorded import ListedItem
from sam_audio_jax.eval.sam_audio_bench.media import (
    clip_files,
    expected_file,
    find_clip,
    find_song,
    load_clip,
    load_song,
    song_files,
)
from sam_audio_jax.eval.sam_audio_bench.published import REMARKS, published
from sam_audio_jax.eval.sam_audio_bench.settings import SETTINGS, Setting
from sam_audio_jax.eval.sam_audio_bench.table import ClipRow, SongRow, Tables, read_tables
from sam_audio_jax.eval.suite import Failure, Separation, Suite, choose
from sam_audio_jax.infer.separate import SAMAudio

NAME = "sam-audio-bench"


@dataclasses.dataclass(frozen=True)
class BenchFiles:
    """The tables and where the recordings are."""

    tables: Tables
    media: pathlib.Path
    songs: pathlib.Path  # folder of MUSDB18-HQ


@dataclasses.dataclass(frozen=True)
class _Listed:
    """A row in one setting; `load` is None where it has no recording."""

    item: ListedItem
    kind: str
    load: Callable[[int], PromptedMixture] | None
    missing: str = ""
    files: Callable[[], tuple[Any, ...]] = tuple  # as in `Separation`

    @property
    def setting(self) -> str:
        return self.item.setting


def open_bench(
    media: str | pathlib.Path,
    tables: Sequence[str | pathlib.Path] = (),
    songs: str | pathlib.Path | None = None,
) -> BenchFiles:
    """Reads the tables; `songs` is the folder of MUSDB18-HQ, by default `media`.

    Raises `UserError` without the folders or a table, for a table that does not fit, and where not
    one recording is there.
    """
    folder, of_songs = pathlib.Path(media), pathlib.Path(songs or media)
    for name, place in (("--media", folder), ("--musdb", of_songs)):
        if not place.is_dir():
            raise UserError(f"{name} {place} is no folder")
    files = BenchFiles(read_tables(folder, tables), folder, of_songs)
    found = any(find_clip(folder, row) for row in files.tables.clips)
    if not found and not any(find_song(of_songs, row) for row in files.tables.songs):
        rows = files.tables.clips
        example = expected_file(rows[0]) if rows else f"test/{files.tables.songs[0].song}"
        raise UserError(
            f"{folder} has no recording of the {len(rows) + len(files.tables.songs)} rows of the "
            f"table: the first would be {example}"
        )
    return files


def bench_suite(
    files: BenchFiles,
    model: SAMAudio,
    solver: SolverChoice,
    *,
    settings: Sequence[str] | None = None,
    limit: int | None = None,
    video_text: bool = False,
) -> Suite:
    """The separations of all settings, or the named ones, that this model can run.

    `video_text`: whether a video is prompted with its text, too. Settings that cannot be run are
    listed with the reason. Raises `UserError` for an unknown setting, a named one that cannot be
    run, and where none can.
    """
    names = list(SETTINGS) if settings is None else list(dict.fromkeys(settings))
    for name in names:
        if name not in SETTINGS:
            raise UserError(f"setting {name!r} must be one of {', '.join(SETTINGS)}")
    not_run, listed = {}, []
    for name in names:
        rows = list(_listed(files, SETTINGS[name], video_text))
        reason = _why_not(SETTINGS[name], rows, model, solver)
        if reason:
            not_run[name] = reason
        else:
            listed += rows
    if not_run and (settings is not None or not listed):
        name, reason = next(iter(not_run.items()))
        raise UserError(f"{name} cannot be run: {reason}")
    return _suite(files, listed, model, not_run, limit, video_text)


def _suite(
    files: BenchFiles,
    listed: Sequence[_Listed],
    model: SAMAudio,
    not_run: Mapping[str, str],
    limit: int | None,
    video_text: bool,
) -> Suite:
    rate = model.sample_rate
    chosen = choose(listed, limit)
    kinds = tuple(dict.fromkeys(one.kind for one in chosen))
    return Suite(
        name=NAME,
        identity={
            "bench": NAME,
            "limit": limit,
            "video_text": video_text,
            "items": [
                [one.item.setting, one.item.id, one.item.caption, one.item.spans] for one in chosen
            ],
        },
        listed=collections.Counter(one.item.setting for one in chosen),
        separations=tuple(
            Separation(
                one.item.id,
                one.item.setting,
                one.kind,
                round(one.item.seconds * rate),
                functools.partial(one.load, rate),
                files=one.files(),
            )
            for one in chosen
            if one.load is not None
        ),
        kinds=kinds,
        kept=kinds,
        refines=("none",),
        missing=tuple(
            Failure(id=one.item.id, setting=one.item.setting, reason=one.missing)
            for one in chosen
            if one.load is None
        ),
        not_run=not_run,
        published=published(),
        remarks=REMARKS,
        may_fail=True,
    )


def _listed(files: BenchFiles, setting: Setting, video_text: bool) -> Iterator[_Listed]:
    """The rows of a setting."""
    if setting.value is None:
        for row in files.tables.songs:
            yield _song(files, setting, row)
    for row in files.tables.clips if setting.value else ():
        if setting.value in row.values:
            yield _clip(files, setting, row, video_text)


def _song(files: BenchFiles, setting: Setting, row: SongRow) -> _Listed:
    item = ListedItem(row.id, setting.name, row.text, (), row.stop - row.start)
    folder = find_song(files.songs, row)
    if folder is None:
        return _Listed(item, setting.kind, None, f"no recording test/{row.song}/mixture.wav")
    load = functools.partial(load_song, row, folder, item)
    return _Listed(item, setting.kind, load, files=lambda: tuple(song_files(row, folder)))


def _clip(files: BenchFiles, setting: Setting, row: ClipRow, video_text: bool) -> _Listed:
    item = ListedItem(row.id, setting.name, row.text, row.spans, row.stop - row.start)
    found = find_clip(files.media, row)
    if found is None:
        return _Listed(item, setting.kind, None, f"no recording {expected_file(row)}")

    def load(rate: int) -> PromptedMixture:
        return load_clip(row, *found, item, rate, video_text)

    path, _ = found
    with_mask = setting.kind == VIDEO
    return _Listed(item, setting.kind, load, files=lambda: tuple(clip_files(row, path, with_mask)))


def _why_not(
    setting: Setting, rows: Sequence[_Listed], model: SAMAudio, solver: SolverChoice
) -> str | None:
    """Why a setting cannot be run; None if it can."""
    if not rows:
        return f"no row of the tables is in it ({setting.value or 'the table of MUSDB18-HQ'})"
    if not any(row.load for row in rows):
        return f"none of its {len(rows)} recordings is there"
    try:
        if setting.kind == VIDEO:
            model.pipeline.video_features.require()
        solver.ranker(model, setting.kind)
    except UserError as error:
        return str(error)
    return None
