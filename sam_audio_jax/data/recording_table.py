"""The recordings of a source as a table: columns of numbers, groups by kind and caption.

A list of recordings in memory is such a table, and so is a folder on disk, whose columns are mapped
and whose recordings are read one by one: a corpus of any size takes the memory of what is read.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import msgpack
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt64

from sam_audio_jax.data import text
from sam_audio_jax.data.config import RECORDED
from sam_audio_jax.data.recording import CATEGORIES, SONG_KINDS, Recording, Song, recording_line
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.files import read_json, whole_folder, write_json

SINGLE = "single "  # before a group: those of its recordings that hold a single event
CATEGORY = "category "  # before a group: the recordings of a category, also stems of songs
VIDEO = "with video features"
LONE = "stems of no song"  # recordings with a `song` that is not known, or has one stem alone

Numbers = Int[np.ndarray, " numbers"]


@dataclasses.dataclass(frozen=True)
class Lists(Sequence):
    """Lists of numbers, one after another in one array."""

    members: Numbers
    starts: Int[np.ndarray, " starts"]  # of each list, and the end of the last

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> Numbers:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.members[self.starts[index] : self.starts[index + 1]]


def key_of(*parts: str) -> int:
    """64 bits that stand for some texts: two of a million texts share them once in 10^7 corpora."""
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def id_key(part: int, name: str) -> int:
    """The key of a recording's id, which is unique in one part of a source."""
    return key_of(str(part), name) if part else key_of(name)


def lists_by_key(numbers: Numbers, keys: UInt64[np.ndarray, " numbers"]) -> Lists:
    """The numbers in one list for each key; keys come in the order of their first number."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    rows = rank[inverse]
    counts = np.bincount(rows, minlength=len(first)) if len(rows) else np.zeros(0, np.int64)
    return Lists(numbers[np.argsort(rows, kind="stable")], np.concatenate([[0], np.cumsum(counts)]))


class Columns:
    """One number of each kind for every recording, collected as they are read."""

    def __init__(self):
        self.rows: list[tuple] = []
        self._parts: list[np.ndarray] = []

    TYPE = np.dtype(
        [
            *(("caption", "u8"), ("sibling", "u8"), ("id", "u8"), ("seconds", "f8")),
            *(("category", "u1"), ("single", "?"), ("in_song", "?"), ("video", "?")),
        ]
    )

    def add(self, one: Recording) -> None:
        """Adds the next recording."""
        keys = key_of(one.caption), key_of(one.source_id, one.caption)
        category = CATEGORIES.index(one.category)
        flags = text.is_single(one), bool(one.song), one.video_features is not None
        self.rows.append((*keys, id_key(one.part, one.id), one.duration, category, *flags))
        if len(self.rows) == 10_000:
            self._pack()

    def _pack(self) -> None:
        self._parts.append(np.array(self.rows, self.TYPE))
        self.rows = []

    def arrays(self) -> Shaped[np.ndarray, " recordings"]:
        """The columns as one structured array."""
        self._pack()
        return np.concatenate(self._parts)


def make_arrays(
    columns: Shaped[np.ndarray, " recordings"],
    songs: Iterable[Song],
    usable: Bool[np.ndarray, " recordings"] | None = None,
) -> dict[str, np.ndarray]:
    """The groups of a table by name; recordings that are not usable are in none of them."""
    usable = np.ones(len(columns), bool) if usable is None else usable
    arrays: dict[str, np.ndarray] = {"seconds": columns["seconds"]}

    def put(name: str, lists: Lists) -> None:
        arrays[f"{name}.members"], arrays[f"{name}.starts"] = lists.members, lists.starts

    for kind in RECORDED:
        inside = usable & ~columns["in_song"]
        if kind in ("speech", "sfx", "instrument"):
            inside = usable & (columns["category"] == CATEGORIES.index(kind))
        elif kind == "music":
            inside &= columns["category"] == CATEGORIES.index(kind)
        for name, chosen in ((kind, inside), (f"{SINGLE}{kind}", inside & columns["single"])):
            numbers = np.flatnonzero(chosen)
            arrays[name] = numbers
            put(f"{name} captions", lists_by_key(numbers, columns["caption"][numbers]))
    for number, name in enumerate(CATEGORIES):
        arrays[f"{CATEGORY}{name}"] = np.flatnonzero(usable & (columns["category"] == number))
    arrays[VIDEO] = np.flatnonzero(columns["video"])
    numbers = np.flatnonzero(usable)
    siblings = lists_by_key(numbers, columns["sibling"][numbers])
    put("siblings", siblings)
    row_of = np.full(len(columns), -1)
    row_of[siblings.members] = np.repeat(np.arange(len(siblings)), np.diff(siblings.starts))
    arrays["sibling row"] = row_of
    by_caption = lists_by_key(numbers, columns["caption"][numbers])
    arrays["last of caption"] = by_caption.members[by_caption.starts[1:] - 1]
    _put_songs(put, columns["id"], songs, usable)
    lone = usable & columns["in_song"]
    for kind in SONG_KINDS:
        lone[arrays[f"{kind}s.members"]] = False
    arrays[LONE] = np.flatnonzero(lone)
    return arrays


def _put_songs(
    put: Callable[[str, Lists], None],
    ids: UInt64[np.ndarray, " recordings"],
    songs: Iterable[Song],
    usable: Bool[np.ndarray, " recordings"],
) -> None:
    """The usable recordings of each song, and of each conversation, that has two or more."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]

    def number_of(part: int, name: str) -> int:
        key = np.uint64(id_key(part, name))
        place = int(np.searchsorted(ordered, key))  # the first of them: later ones are not used
        return int(order[place]) if place < len(ordered) and ordered[place] == key else -1

    def stems_of(song: Song) -> tuple[list[int], bool]:
        """The recordings of a song, and whether some are of manifests beside its own."""
        own = [number_of(song.part, stem) for stem in song.stems]
        if max(own, default=-1) < 0 or min(own) >= 0:
            return own, False
        parts = song.part, *song.beside
        everywhere = [[n for p in parts if (n := number_of(p, s)) >= 0] for s in song.stems]
        others = [of[0] for of, n in zip(everywhere, own, strict=True) if n < 0 and of]
        if not others:
            return own, False
        for stem, of in zip(song.stems, everywhere, strict=True):
            if len(of) > 1:
                raise UserError(
                    f"song {shown(song.name)} has the stem {shown(stem)} in several manifests of "
                    "its folder, and others in one of them: give them ids of their own"
                )
        return [of[0] for of in everywhere if of], True

    found: dict[str, list[list[int]]] = {kind: [] for kind in SONG_KINDS}
    seen: set[tuple[int, ...]] = set()  # songs of several manifests, of which each has the song
    for song in songs:
        numbers, is_shared = stems_of(song)
        numbers = [number for number in numbers if number >= 0 and usable[number]]
        if is_shared and tuple(numbers) in seen:
            continue
        if is_shared:
            seen.add(tuple(numbers))
        if len(numbers) > 1:
            found[song.kind].append(numbers)
    for kind, lists in found.items():
        members = np.array([number for one in lists for number in one], np.int64)
        put(f"{kind}s", Lists(members, np.cumsum([0, *map(len, lists)])))


class RecordingTable:
    """Recordings by number with their groups. Picklable; one on disk as the name of its folder."""

    def __init__(
        self, recordings: Sequence[Recording], arrays: Mapping[str, np.ndarray], folder: str = ""
    ):
        self.recordings, self.arrays, self.folder = recordings, arrays, folder

    def __reduce__(self):
        if self.folder:
            return open_table, (self.folder,)
        return RecordingTable, (self.recordings, dict(self.arrays))

    def numbers(self, group: str) -> Numbers:
        """The recordings of one group, in order."""
        return self.arrays[group]

    @property
    def seconds(self) -> Float[np.ndarray, " recordings"]:
        """How long each recording is, as its source says."""
        return self.arrays["seconds"]

    def lists(self, name: str) -> Lists:
        """The lists of one name, as `make_arrays` has them."""
        return Lists(self.arrays[f"{name}.members"], self.arrays[f"{name}.starts"])

    def siblings(self, number: int) -> Numbers:
        """The recordings of the same source and caption, with this one."""
        return self.lists("siblings")[int(self.arrays["sibling row"][number])]


def make_table(
    recordings: Sequence[Recording],
    songs: Iterable[Song],
    usable: Bool[np.ndarray, " recordings"] | None = None,
) -> RecordingTable:
    """The table of a list of recordings, in memory."""
    columns = Columns()
    for recording in recordings:
        columns.add(recording)
    return RecordingTable(recordings, make_arrays(columns.arrays(), songs, usable))


class StoredRecordings(Sequence):
    """The recordings of a table on disk, each read when it is looked at."""

    def __init__(self, folder: pathlib.Path):
        self._starts = np.load(folder / "starts.npy", mmap_mode="r")
        self._bytes = np.memmap(folder / "recordings.msgpack", np.uint8, "r")

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> list[Recording]: ...
    def __getitem__(self, index: int | slice) -> Recording | list[Recording]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        fields = msgpack.unpackb(self._bytes[self._starts[index] : self._starts[index + 1]])
        for name in ("alt_captions", "stems"):
            fields[name] = tuple(fields.get(name, ()))
        fields["spans"] = tuple(map(tuple, fields.get("spans", ())))
        return Recording(**fields)


def pack_recording(recording: Recording) -> bytes:
    """The fields that are not their defaults, as bytes."""
    packed = msgpack.packb(recording_line(recording), unicode_errors="surrogateescape")
    assert packed is not None
    return packed


def write_table(
    folder: str | os.PathLike,
    recordings: Iterable[Recording],
    songs: Callable[[], Iterable[Song]],
    notes: Callable[[Numbers], dict[str, Any]],
) -> None:
    """Writes the table of recordings, which are looked at one by one and not kept.

    `songs` and `notes`, which go into `index.json`, are called when the recordings are at an end;
    `notes` gets the numbers of recordings whose id an earlier one has, which are not used.
    """
    columns, starts, position = Columns(), [np.zeros(1, np.int64)], 0
    with whole_folder(folder) as part:
        with (part / "recordings.msgpack").open("wb") as file:
            ends = []
            for recording in recordings:
                packed = pack_recording(recording)
                file.write(packed)
                position += len(packed)
                ends.append(position)
                columns.add(recording)
                if len(ends) == 10_000:
                    starts.append(np.array(ends))
                    ends = []
            starts.append(np.array(ends, np.int64))
            if not position:
                file.write(b"\0")  # an empty file cannot be mapped
        np.save(part / "starts.npy", np.concatenate(starts))
        array = columns.arrays()
        first = np.zeros(len(array), bool)  # of its id
        first[np.unique(array["id"], return_index=True)[1]] = True
        arrays = make_arrays(array, songs(), first)
        for number, array in enumerate(arrays.values()):
            np.save(part / f"{number}.npy", array)
        write_json(
            part / "index.json",
            notes(np.flatnonzero(~first)) | {"arrays": list(arrays)},
            indent=None,
        )


def open_table(folder: str | os.PathLike) -> RecordingTable:
    """A table that `write_table` has written; its columns are mapped, not read."""
    folder = pathlib.Path(folder)
    names = read_json(folder / "index.json")["arrays"]
    arrays = {
        name: np.load(folder / f"{number}.npy", mmap_mode="r") for number, name in enumerate(names)
    }
    return RecordingTable(StoredRecordings(folder), arrays, str(folder))
