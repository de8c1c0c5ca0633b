"""How long the recordings of a manifest are, from their headers; measured once.

Several processes share the work without waiting: each begins with another part of the list, leaves
what it finds in `lengths.INDEX.jsonl` and takes over what it finds there of the others.
"""

import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tqdm

from sam_audio_jax import audio
from sam_audio_jax.distributed import ProcessRank
from sam_audio_jax.errors import UserError

READERS = 16  # headers read at once: the wait is for a disk or a network
CHUNK = 1_000  # recordings between two looks at what the others found

Length = tuple[int, int]  # samples, rate


def measure(
    paths: Sequence[pathlib.Path], out: pathlib.Path, place: ProcessRank
) -> tuple[dict[pathlib.Path, Length], dict[pathlib.Path, str]]:
    """Samples and rate of each recording, and the reasons of those that cannot be read.

    A header may be wrong: who decodes the recording has to look. Where a header does not tell,
    the recording is decoded here.
    """
    cache = _Cache(out, place.index)
    found: dict[pathlib.Path, Length] = {}
    failed: dict[pathlib.Path, str] = {}
    wanted = list(dict.fromkeys(paths))
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    first = place.index * len(chunks) // place.count
    with (
        concurrent.futures.ThreadPoolExecutor(READERS) as pool,
        tqdm.tqdm(total=len(wanted), unit="file", desc="measure", leave=False) as bar,
    ):
        for chunk in [*chunks[first:], *chunks[:first]]:
            cache.read_others()
            measured = list(pool.map(cache.measure, chunk))
            for path, (length, reason, _) in zip(chunk, measured, strict=True):
                if length is None:
                    failed[path] = reason
                else:
                    found[path] = length
            cache.write(zip(chunk, measured, strict=True))
            bar.update(len(chunk))
    return found, failed


def count_samples(path: pathlib.Path) -> Length:
    """Samples and rate by the header, else by decoding. UserError: it cannot be read."""
    said = audio.said_length(path)
    if said is not None:
        return said
    recording = audio.load(path)
    return recording.samples.shape[-1], recording.sample_rate


class _Cache:
    """The files `lengths.*.jsonl`; an entry holds for one size and time of change."""

    def __init__(self, out: pathlib.Path, index: int, count: Callable[..., Length] = count_samples):
        self.out, self.count = out, count
        self.mine = out / f"lengths.{index}.jsonl"
        self.known: dict[str, tuple[str, Length]] = {}  # path -> stamp, length
        self.places: dict[pathlib.Path, int] = {}  # how far each file is read

    def measure(self, path: pathlib.Path) -> tuple[Length | None, str, str]:
        """Length or reason, and the stamp of what is not in the cache yet."""
        try:
            state = os.stat(path)
            stamp = f"{state.st_size} {state.st_mtime_ns}"
        except OSError:
            return None, f"no sound file at {path}", ""
        known = self.known.get(str(path))
        if known is not None and known[0] == stamp:
            return known[1], "", ""
        try:
            return self.count(path), "", stamp
        except UserError as error:
            return None, str(error), ""

    def read_others(self) -> None:
        """What came since the last look, whole lines only."""
        for file in sorted(self.out.glob("lengths.*.jsonl")):
            with file.open("rb") as lines:
                lines.seek(self.places.get(file, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.places[file] = self.places.get(file, 0) + len(line)
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            path, stamp, samples, rate = json.loads(line)
        except (ValueError, TypeError):  # two lines of which a kill cut the first short
            return
        self.known[path] = (stamp, (samples, rate))

    def write(self, measured: Iterable[tuple[pathlib.Path, tuple[Any, str, str]]]) -> None:
        """Appends what is new."""
        lines = list(self._lines(measured))
        if lines:
            with self.mine.open("a", encoding="utf-8") as file:
                file.write("".join(lines))

    def _lines(self, measured: Iterable[tuple[pathlib.Path, Any]]) -> Iterator[str]:
        for path, (length, _, stamp) in measured:
            if length is not None and stamp:
                yield json.dumps([str(path), stamp, *length]) + "\n"
