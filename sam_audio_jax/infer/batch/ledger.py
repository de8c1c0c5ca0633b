"""Which items of a manifest are done: lines appended by any number of processes, never lost.

A process that works alone appends to `done.jsonl`. Of several, each appends to its own
`done.INDEX.jsonl`, so that none waits for another; the items that are done are the union of all
these files, whichever process wrote them and however many there were. Each process that ends merges
them into `done.jsonl`; the files of the processes stay until one process works alone.
`failed.jsonl` is merged in the same way.
"""

import os
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sam_audio_jax.files import append_jsonl, iter_jsonl, write_jsonl
from sam_audio_jax.infer.batch.stamps import FileStamp, has_changed
from sam_audio_jax.process_rank import ProcessRank

DONE, FAILED = "done", "failed"


class Ledger:
    """The ledger of the folder `out`; `lines` maps an item's id to its line in the manifest.

    `bad_lines` are the records of lines that name no item; they are failures of every run. `stamps`
    are those of the items' files now: an item whose recording has changed is not done.
    """

    def __init__(
        self,
        out: pathlib.Path,
        lines: Mapping[str, Any],
        rank: ProcessRank,
        bad_lines: Sequence[dict[str, Any]],
        stamps: Mapping[str, FileStamp],
    ):
        self.stamps = stamps
        self.out, self.lines, self.rank, self.bad_lines = out, lines, rank, bad_lines
        for path in self._process_files(FAILED):
            index = path.stem.removeprefix(f"{FAILED}.")
            if index == str(rank.index) or not index.isdigit() or int(index) >= rank.count:
                path.unlink(missing_ok=True)
        if rank.count == 1:
            self._merge()
        self.done = {record["id"]: frames_and_spans(record) for record in self._records()}
        self._path = out / "done.jsonl" if rank.count == 1 else self._process_file(DONE)

    def record(self, record: dict[str, Any]) -> None:
        """Records an item whose files are written; the line is on the disk when this returns."""
        name = record["id"]
        more = {"item": self.lines[name], "stamp": self.stamps[name]}
        append_jsonl(self._path, [record | more])
        self.done[name] = frames_and_spans(record)

    def close(self, failed: Mapping[str, str]) -> None:
        """Records this process's failures (id -> reason) and merges the files of all processes."""
        lines = [{"id": name, "reason": reason} for name, reason in failed.items()]
        write_jsonl(self._process_file(FAILED), lines)
        self._merge()

    def left(self) -> list[str]:
        """Returns the items that are neither done nor failed, once every process has closed.

        Empty before, and for a process that works alone. A process that has not started in this
        call counts as closed if it was in an earlier one: its items may then be done twice.
        """
        files = [self.out / f"{FAILED}.{index}.jsonl" for index in range(self.rank.count)]
        if self.rank.count == 1 or not all(file.exists() for file in files):
            return []
        known = {record["id"] for record in self._records()}
        known |= {record.get("id") for record in _read_records(files)}
        return [name for name in self.lines if name not in known]

    def _merge(self) -> None:
        """Writes `done.jsonl` and `failed.jsonl` from the files of all processes.

        It is repeated until no other process has recorded an item meanwhile: of two processes that
        merge at once, one writes the records of both.
        """
        written = -1
        while written < sum(1 for _ in self._kept()):
            written = write_jsonl(self.out / "done.jsonl", self._kept())
        done = {record["id"] for record in self._records()}
        failed = {
            record["id"]: record
            for record in _read_records(self._process_files(FAILED))
            if record.get("id") in self.lines and record["id"] not in done
        }
        lines = [failed[name] for name in self.lines if name in failed] + [*self.bad_lines]
        if lines:
            write_jsonl(self.out / "failed.jsonl", lines)
        else:
            (self.out / "failed.jsonl").unlink(missing_ok=True)
        if self.rank.count == 1:
            for path in [*self._process_files(DONE), *self._process_files(FAILED)]:
                path.unlink()

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yields each finished item once, if its line and its recording are unchanged.

        The files of its result must exist, too.
        """
        existing, yielded = set(os.listdir(self.out)), set()
        for record in _read_records([*self._process_files(DONE), self.out / "done.jsonl"]):
            name, files = record.get("id"), record.get("files")
            if files is None or name in yielded or self.lines.get(str(name)) != record.get("item"):
                continue
            if has_changed(record.get("stamp"), self.stamps.get(str(name), {})):
                continue
            if existing.issuperset(files):
                yielded.add(name)
                yield record

    def _kept(self) -> Iterator[dict[str, Any]]:
        """Yields `_records`, and those of other manifests' items: a wrong one costs no work."""
        yield from self._records()
        others = set(self.lines)
        for record in _read_records([*self._process_files(DONE), self.out / "done.jsonl"]):
            name = str(record.get("id"))
            if name not in others:
                others.add(name)
                yield record

    def _process_files(self, kind: str) -> list[pathlib.Path]:
        return sorted(self.out.glob(f"{kind}.*.jsonl"))

    def _process_file(self, kind: str) -> pathlib.Path:
        return self.out / f"{kind}.{self.rank.index}.jsonl"


def count_done(out: pathlib.Path, names: Collection[str]) -> int:
    """Returns how many of these items are done when a process has closed its ledger."""
    return sum(record.get("id") in names for record in _read_records([out / "done.jsonl"]))


def frames_and_spans(record: Mapping[str, Any]) -> tuple[int, Sequence]:
    """Returns what is needed of a finished item: its latent frames and its spans."""
    return record["frames"], record["spans"]


def _read_records(paths: Sequence[pathlib.Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for _, record in iter_jsonl(path, skip_torn=True):
            if isinstance(record, dict):
                yield record
