"""The lengths of a manifest's recordings, read from their headers once.

Several processes share the work without waiting: each starts at another part of the list, appends
the lengths to `lengths.INDEX.jsonl` and reads the lengths that the others have appended there.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Sequence

from sam_audio_jax import audio
from sam_audio_jax.errors import describe
from sam_audio_jax.files import append_jsonl, read_jsonl_from
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.progress_bar import progress_bar

READERS = 16  # headers read at once: the time goes into waiting for a disk or a network
CHUNK = 1_000  # recordings measured before the others' files are read again

Length = tuple[int, int]  # samples, sample rate
Track = tuple[pathlib.Path, int | None]  # a file and which of its audio tracks


def measure(
    sources: Sequence[Track], out: pathlib.Path, rank: ProcessRank
) -> tuple[dict[Track, Length], dict[Track, str]]:
    """Returns the length of each recording, and the reasons of those that cannot be read.

    A recording whose structure does not show its length is decoded here. Callers compare once they
    have decoded it.
    """
    cache = _Cache(out, rank.index)
    lengths: dict[Track, Length] = {}
    failed: dict[Track, str] = {}
    unique = list(dict.fromkeys(sources))
    chunks = [unique[start : start + CHUNK] for start in range(0, len(unique), CHUNK)]
    first = rank.index * len(chunks) // rank.count
    with (
        concurrent.futures.ThreadPoolExecutor(READERS) as pool,
        progress_bar(total=len(unique), unit="file", desc="measure", leave=False) as bar,
    ):
        for chunk in [*chunks[first:], *chunks[:first]]:
            cache.update()
            new = []
            for source, measured in zip(chunk, pool.map(cache.measure, chunk), strict=True):
                if isinstance(measured, str):
                    failed[source] = measured
                    continue
                lengths[source], stamp = measured
                if stamp:
                    new.append([_key(source), stamp, *lengths[source]])
            if new:
                append_jsonl(cache.own_path, new)
            bar.update(len(chunk))
    return lengths, failed


def count_samples(path: pathlib.Path, track: int | None = None) -> Length:
    """Returns samples and sample rate by the structure of the file, else by decoding.

    Raises UserError if the file cannot be read.
    """
    length = audio.header_length(path) if track is None else None
    if length is not None:
        return length
    recording = audio.load(path, track)
    return recording.samples.shape[-1], recording.sample_rate


def file_stamp(path: str | os.PathLike) -> str:
    """By what a file is known to be another one: its size and modification time."""
    state = os.stat(path)
    return f"{state.st_size} {state.st_mtime_ns}"


class _Cache:
    """The files `lengths.*.jsonl`; an entry holds for one size and one modification time."""

    def __init__(self, out: pathlib.Path, index: int):
        self.out = out
        self.own_path = out / f"lengths.{index}.jsonl"
        self.entries: dict[str, tuple[str, Length]] = {}  # key of a source -> stamp, length
        self.offsets: dict[pathlib.Path, int] = {}  # bytes of each file that are read

    def measure(self, source: Track) -> tuple[Length, str] | str:
        """Returns the length with the stamp of a new entry ("" if cached), or why there is none."""
        try:
            stamp = file_stamp(audio.check_file(source[0]))
            cached_stamp, length = self.entries.get(_key(source), ("", (0, 0)))
            if cached_stamp == stamp:
                return length, ""
            return count_samples(*source), stamp
        except Exception as error:  # of a decoder, too: it is this recording's alone
            return describe(error)

    def update(self) -> None:
        """Reads the lines that were appended since the last call, by this process or others."""
        for file in sorted(self.out.glob("lengths.*.jsonl")):
            values, self.offsets[file] = read_jsonl_from(file, self.offsets.get(file, 0))
            for value in values:
                if isinstance(value, list) and len(value) == 4:
                    key, stamp, samples, rate = value
                    self.entries[key] = (stamp, (samples, rate))


def _key(source: Track) -> str:
    path, track = source
    return str(path) if track is None else f"{path} track {track}"
