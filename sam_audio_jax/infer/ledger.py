"""Which items of a manifest are made: lines appended by any number of processes, never lost.

One process alone writes `done.jsonl`. Of several each appends to its own `done.INDEX.jsonl`, so
that none waits for another; what is done is the union of all these files, whoever wrote them and
however many processes there were. Each that ends merges them into `done.jsonl`; the parts stay
until one process alone goes over the manifest. `failed.jsonl` is made likewise.
"""

import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sam_audio_jax.distributed import ProcessRank

DONE, FAILED = "done", "failed"
STALE_S = 3_600.0  # a half-written file of this age belongs to nobody any more


class Ledger:
    """Of the folder `out`; `lines` are the manifest's lines by id, as they stand there now."""

    def __init__(self, out: pathlib.Path, lines: Mapping[str, Any], place: ProcessRank):
        self.out, self.lines, self.place = out, lines, place
        self._remove_half_written()
        for file in self._parts(FAILED):
            index = file.stem.removeprefix(f"{FAILED}.")
            if index == str(place.index) or not index.isdigit() or int(index) >= place.count:
                file.unlink(missing_ok=True)
        if place.count == 1:
            self._merge()
        self.done = {record["id"]: brief(record) for record in self._records()}
        mine = out / "done.jsonl" if place.count == 1 else self._part(DONE)
        self._file = mine.open("a", encoding="utf-8")

    def record(self, record: dict[str, Any]) -> None:
        """An item whose files are written; on disk before the next item."""
        self._file.write(json.dumps(record | {"item": self.lines[record["id"]]}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[record["id"]] = brief(record)

    def close(self, failed: Mapping[str, str]) -> None:
        """Notes what failed here, and merges what all processes have done and failed so far."""
        self._file.close()
        lines = [{"id": name, "reason": reason} for name, reason in failed.items()]
        write_whole(self._temporary(FAILED), lines, self._part(FAILED))
        self._merge()

    def _merge(self) -> None:
        """Again until nothing came in between: of two who merge at once one sees everything."""
        written = -1
        while written < sum(1 for _ in self._records()):
            written = write_whole(self._temporary(DONE), self._records(), self.out / "done.jsonl")
        done = {record["id"] for record in self._records()}
        failed = {
            record["id"]: record
            for record in _read(self._parts(FAILED))
            if record.get("id") in self.lines and record["id"] not in done
        }
        if failed:
            lines = [failed[name] for name in self.lines if name in failed]
            write_whole(self._temporary(FAILED), lines, self.out / "failed.jsonl")
        else:
            (self.out / "failed.jsonl").unlink(missing_ok=True)
        if self.place.count == 1:
            for file in [*self._parts(DONE), *self._parts(FAILED)]:
                file.unlink()

    def _records(self) -> Iterator[dict[str, Any]]:
        """Once each: finished items whose line is unchanged and whose files are there."""
        there, seen = set(os.listdir(self.out)), set()
        for record in _read([*self._parts(DONE), self.out / "done.jsonl"]):
            name, files = record.get("id"), record.get("files")
            if files is None or name in seen or self.lines.get(str(name)) != record.get("item"):
                continue
            if there.issuperset(files):
                seen.add(name)
                yield record

    def _parts(self, kind: str) -> list[pathlib.Path]:
        return sorted(self.out.glob(f"{kind}.*.jsonl"))

    def _part(self, kind: str) -> pathlib.Path:
        return self.out / f"{kind}.{self.place.index}.jsonl"

    def _temporary(self, kind: str) -> pathlib.Path:
        return self.out / f"{kind}.{self.place.index}.part"

    def _remove_half_written(self) -> None:
        """What a killed process left; with others at work only what is old."""
        for left in self.out.glob("*.part"):
            try:
                if self.place.count == 1 or time.time() - left.stat().st_mtime > STALE_S:
                    left.unlink()
            except FileNotFoundError:  # another process was faster
                continue


def brief(record: Mapping[str, Any]) -> tuple[int, Sequence]:
    """What a later call needs to know of a finished item: its frames and its spans."""
    return record["frames"], record["spans"]


def write_whole(
    part: pathlib.Path, records: Iterable[Mapping[str, Any]], path: pathlib.Path
) -> int:
    """Writes `path` at once, by way of `part`; how many lines."""
    count = 0
    with part.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
            count += 1
    part.replace(path)
    return count


def _read(files: Iterable[pathlib.Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        try:
            lines = file.open(encoding="utf-8")
        except FileNotFoundError:
            continue
        with lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:  # a line that a kill cut short
                    continue
                if isinstance(record, dict):
                    yield record
