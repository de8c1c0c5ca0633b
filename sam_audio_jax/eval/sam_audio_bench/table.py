"""The released tables: parquet files with one item a row (docs/benchmark.md, "Files")."""

import dataclasses
import functools
import io
import itertools
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxtyping import Bool

from sam_audio_jax.bounds import Finite, NonNegative, Range, check
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import check_file_name
from sam_audio_jax.scorers.activity import TimeRange

# Column -> what its values are. Others may be there.
CLIP_COLUMNS: Mapping[str, Any] = {
    "video_id": str,
    "source_dataset": str,
    "start_offset": NonNegative,
    "end_offset": NonNegative,
    "description": str,
    "spans": tuple[tuple[Finite, Finite], ...],
    "paper_eval_sets": tuple[str, ...],
}
MASKS = "mask_bytes"
SONG_COLUMNS: Mapping[str, Any] = {
    "id": str,
    "start_time": NonNegative,
    "end_time": NonNegative,
    "description": str,
}
MASKLET = "video_masklet"  # the array in the compressed NumPy file of a mask
MOST_MASK_BYTES = 2**32  # of one unpacked masklet
PartSeconds = Annotated[float, Range(0, 3_600, (False, True))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRow:
    """An item of the benchmark: a part of a video and what is asked of it; times in seconds."""

    id: str
    video_id: str
    source: str  # the data set that the video is of, a folder of the media
    start: float
    stop: float
    text: str
    spans: tuple[TimeRange, ...]  # of the part
    values: tuple[str, ...]  # of `paper_eval_sets`
    mask_bytes: Callable[[], bytes | None] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SongRow:
    """An item of `instr-pro`: a part of a song of MUSDB18-HQ and the stem that is asked for."""

    id: str
    song: str
    start: float
    stop: float
    text: str


@dataclasses.dataclass(frozen=True)
class Tables:
    """The rows of all files."""

    clips: tuple[ClipRow, ...]
    songs: tuple[SongRow, ...]
    files: tuple[pathlib.Path, ...]


def read_tables(media: pathlib.Path, named: Sequence[str | pathlib.Path] = ()) -> Tables:
    """Reads the named parquet files, or those in `media` or its folder `data` that fit.

    Raises `UserError`, with the file and what it lacks, where there is none, or one has other
    columns or values.
    """
    if named:
        files = [pathlib.Path(one) for one in named]
        if len(set(files)) < len(files):
            raise UserError(f"{max(files, key=files.count)} is named twice")
        kinds = {path: _kind(path) for path in files}
        for kind in kinds.values():
            if isinstance(kind, UserError):
                raise kind
    else:
        files = sorted(
            path for place in (media, media / "data") for path in place.glob("*.parquet")
        )
        kinds = {path: kind for path in files if not isinstance(kind := _kind(path), UserError)}
        if not kinds:
            seen = f" ({_kind(files[0])})" if files else ""
            raise UserError(
                f"{media} holds no table of SAM Audio-Bench{seen}: put its *.parquet there, or "
                "name it by --bench-table"
            )
    rows: dict[pathlib.Path, list[Any]] = {}
    for path, kind in kinds.items():
        of_file = list(_clip_rows(path) if kind is CLIP_COLUMNS else _song_rows(path))
        for other, known in rows.items():
            pair = ((set(known), other), (set(of_file), path))
            (part, smaller), (whole, larger) = sorted(pair, key=lambda one: len(one[0]))
            if part <= whole:  # but for the masks, which are not read
                raise UserError(
                    f"{larger} has the rows of {smaller}, which would count twice: leave one of "
                    "them"
                )
        rows[path] = of_file
    every = list(itertools.chain.from_iterable(rows.values()))
    clips = [row for row in every if isinstance(row, ClipRow)]
    songs = [row for row in every if isinstance(row, SongRow)]
    return Tables(tuple(_numbered(clips)), tuple(_numbered(songs)), tuple(kinds))


def _kind(path: pathlib.Path) -> Mapping[str, Any] | UserError:
    """The columns that a file is expected to have, or what is wrong with it."""
    if not path.is_file():
        return UserError(f"no table at {path}")
    try:
        names = set(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError) as error:
        return UserError(f"{path} is no parquet file: {first_line(error)}")
    layouts = {
        "SAM Audio-Bench": (CLIP_COLUMNS, (*CLIP_COLUMNS, MASKS)),
        "its MUSDB18-HQ part": (SONG_COLUMNS, tuple(SONG_COLUMNS)),
    }
    lacking: dict[str, list[str]] = {}
    for name, (columns, needed) in layouts.items():
        lacking[name] = [column for column in needed if column not in names]
        if not lacking[name]:
            return columns
    nearest = min(lacking, key=lambda name: len(lacking[name]) / len(layouts[name][1]))
    return UserError(
        f"{path} is another table: of the columns of {nearest} it lacks "
        f"{', '.join(lacking[nearest])}"
    )


def _rows(path: pathlib.Path, columns: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its checked values."""
    try:
        table = pyarrow.parquet.read_table(path, columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if not len(table):
        raise UserError(f"{path} has no rows")
    for number, row in enumerate(table.to_pylist(), 1):
        for name, hint in columns.items():
            check(hint, row[name], f"{path} row {number}: {name}")
        yield number, row


def _check_masks(path: pathlib.Path) -> None:
    """Raises `UserError` for a column of masks that holds no bytes; it is read later."""
    kind = pyarrow.parquet.read_schema(path).field(MASKS).type
    binary = (pyarrow.types.is_binary, pyarrow.types.is_large_binary, pyarrow.types.is_null)
    if not any(matches(kind) for matches in binary):
        raise UserError(f"{path}: column {MASKS} must hold bytes or nulls, not {kind}")


def _clip_rows(path: pathlib.Path) -> Iterator[ClipRow]:
    _check_masks(path)
    masks = _LazyColumn(path, MASKS)
    for number, row in _rows(path, CLIP_COLUMNS):
        where = f"{path} row {number}"
        start, stop = row["start_offset"], row["end_offset"]
        check(PartSeconds, stop - start, f"{where}: end_offset - start_offset")
        for name in ("video_id", "source_dataset"):
            check_file_name(row[name], where)
        for first, last in row["spans"]:
            if not 0 <= first < last:
                raise UserError(f"{where}: span {first:g}-{last:g} s must have 0 <= start < end")
        yield ClipRow(
            id=f"{row['video_id']}_{milliseconds(start)}_{milliseconds(stop)}",
            video_id=row["video_id"],
            source=row["source_dataset"],
            start=float(start),
            stop=float(stop),
            text=row["description"],
            spans=tuple((float(first), float(last)) for first, last in row["spans"]),
            values=tuple(row["paper_eval_sets"]),
            mask_bytes=masks.reader(number - 1),
        )


def _song_rows(path: pathlib.Path) -> Iterator[SongRow]:
    for number, row in _rows(path, SONG_COLUMNS):
        where = f"{path} row {number}"
        start, stop = row["start_time"], row["end_time"]
        check(PartSeconds, stop - start, f"{where}: end_time - start_time")
        check_file_name(row["id"], where)
        parts = (row["id"], str(milliseconds(start)), str(milliseconds(stop)))
        yield SongRow(
            id="_".join(parts),
            song=row["id"],
            start=float(start),
            stop=float(stop),
            text=row["description"],
        )


def _numbered(rows: Sequence[Any]) -> Iterator[Any]:
    """The rows with unique ids: the second row of one part of a recording has `.2` behind it."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.id] = seen.get(row.id, 0) + 1
        count = seen[row.id]
        yield row if count == 1 else dataclasses.replace(row, id=f"{row.id}.{count}")


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, as they are in the names of cut clips."""
    return round(seconds * 1000)


class _LazyColumn:
    """A column of large values, which is read when the first of them is needed."""

    def __init__(self, path: pathlib.Path, name: str):
        self.path, self.name = path, name

    @functools.cached_property
    def column(self) -> pyarrow.ChunkedArray:
        """All of its values."""
        try:
            return pyarrow.parquet.read_table(self.path, columns=[self.name]).column(self.name)
        except (pyarrow.ArrowException, OSError) as error:
            reason = first_line(error)
            raise UserError(f"{self.name} of {self.path} cannot be read: {reason}") from None

    def reader(self, row: int) -> Callable[[], bytes | None]:
        """Returns a function that reads the value of a row, from 0."""

        return lambda: self.column[row].as_py()


def unpack_masks(packed: bytes, name: str) -> Bool[np.ndarray, "masks height width"]:
    """The masks in a compressed NumPy file; `name` is what errors call it.

    Raises `UserError` for bytes that are no such file, or hold no array `video_masklet` of numbers
    `[masks, height, width]`. Pickled objects are never read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            size = archive.getinfo(f"{MASKLET}.npy").file_size
        if size > MOST_MASK_BYTES:
            raise UserError(f"the mask of {name} unpacks to {size} bytes")
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            masks = arrays[MASKLET]
    except UserError:
        raise
    except (KeyError, ValueError, OSError, EOFError, RuntimeError) as error:
        raise UserError(f"the mask of {name} cannot be read: {first_line(error)}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError) as error:
        raise UserError(f"the mask of {name} cannot be read: {first_line(error)}") from None
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 3 or masks.dtype.kind not in "buif" or not masks.size:
        raise UserError(
            f"the mask of {name} must be numbers [masks, height, width], not {masks.dtype} of "
            f"shape {masks.shape}"
        )
    return masks != 0
