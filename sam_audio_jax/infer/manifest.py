"""Many items from a JSONL manifest: grouped by length, resumable, one bad item stops no other.

What is solved together depends on the manifest alone, not on what is done already, so a run that
was killed and started again leaves the same bytes as one that was not.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np
import tqdm

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item, parse_spans
from sam_audio_jax.infer.options import Options
from sam_audio_jax.infer.output import write_stems
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.separator.prompts import Span

KEYS = ("id", "audio", "text", "spans", "video", "mask")
FILES = ("audio", "video", "mask")
SETTINGS = "settings.json"
DONE, FAILED = "done.jsonl", "failed.jsonl"
READERS = 4  # files decoded at once


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the manifest."""

    id: str
    audio: pathlib.Path
    text: str | None
    spans: tuple[Span, ...]
    video: pathlib.Path | None
    mask: pathlib.Path | None
    line: dict[str, Any]  # as it stood there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a folder of results was made with; another run into it must have the same."""

    checkpoint: str
    seed: int = 0
    method: str | None = None
    steps: int | None = None
    refine: str | None = None
    candidates: int = 1
    predict_spans: bool = False
    span_predictor: str | None = None
    mask_keeps: str = "object"

    def options(self, model: SAMAudio) -> Options:
        return model.options(
            method=self.method,
            steps=self.steps,
            seed=self.seed,
            refine=self.refine,
            candidates=self.candidates,
            predict_spans=self.predict_spans,
        )


def read_manifest(path: pathlib.Path) -> list[Entry]:
    """Every line, checked in form; sound files are looked at later. UserErrors name the line."""
    if not path.is_file():
        raise UserError(f"no manifest at {path}")
    entries: list[Entry] = []
    known: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        entry = _parse(line, f"{path.name} line {number}", path.parent)
        if entry.id in known:
            raise UserError(
                f"{path.name} line {number}: id {entry.id!r} is that of line {known[entry.id]}"
            )
        known[entry.id] = number
        entries.append(entry)
    if not entries:
        raise UserError(f"manifest {path} is empty")
    return entries


def _parse(line: str, where: str, folder: pathlib.Path) -> Entry:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where} must be an object like {{'id': 'a', 'audio': 'a.wav'}}")
    unknown = [key for key in fields if key not in KEYS]
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)}")
    for key in ("id", *FILES):
        given = fields.get(key)
        left_out = given is None and key not in ("id", "audio")
        if not (left_out or (isinstance(given, str) and given)):
            raise UserError(f"{where}: {key} must be a string, got {given!r}")
    if fields.get("mask") and not fields.get("video"):
        raise UserError(f"{where} has a mask but no video that it is of")
    name, text = fields["id"], fields.get("text")
    if name != os.path.basename(name) or name.startswith(".") or len(name) > 200:
        raise UserError(f"{where}: id {name!r} must serve as a file name")
    if not isinstance(text, str | None):
        raise UserError(f"{where}: text must be a string, got {text!r}")
    spans = parse_spans(fields.get("spans") or (), where)
    video, mask = (folder / fields[key] if fields.get(key) else None for key in ("video", "mask"))
    return Entry(name, folder / fields["audio"], text, spans, video, mask, fields)


def check_out(out: pathlib.Path, settings: Settings) -> None:
    """A folder to write into is missing, empty, or of a run with the same settings."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    if not any(out.iterdir()):
        return
    try:
        saved = json.loads((out / SETTINGS).read_text())
    except (OSError, ValueError):
        raise UserError(f"{out} holds other files and no run of a manifest") from None
    now = dataclasses.asdict(settings)
    then = dataclasses.asdict(Settings(checkpoint="")) | saved  # older runs knew fewer settings
    changed = [
        f"{key}: then {then[key]!r}, now {value!r}"
        for key, value in now.items()
        if then[key] != value
    ]
    if changed:
        raise UserError(f"{out} was made with other settings ({'; '.join(changed)})")


def run(
    model: SAMAudio, entries: Sequence[Entry], out: pathlib.Path, settings: Settings
) -> dict[str, str]:
    """Separates what is not done yet into `out`; returns id -> reason of what failed.

    Each item leaves `ID.target.wav`, `ID.residual.wav`, with a video file that with the target as
    its sound, and then its line in `done.jsonl`.
    """
    options = settings.options(model)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("*.part"):  # of a run that was killed while writing
        left.unlink()
    _write_whole(out / SETTINGS, [dataclasses.asdict(settings)])
    return _Run(model, entries, out, options, settings.mask_keeps).run()


class _Run:
    """One go over a manifest."""

    def __init__(
        self,
        model: SAMAudio,
        entries: Sequence[Entry],
        out: pathlib.Path,
        options: Options,
        mask_keeps: str,
    ):
        self.model, self.entries, self.out = model, entries, out
        self.options, self.mask_keeps = options, mask_keeps
        self.done = _read_done(out, entries)  # id -> its line in the ledger
        self.failed: dict[str, str] = {}
        self.frames: dict[str, int] = {}  # of every item that can be read

    def run(self) -> dict[str, str]:
        _write_whole(self.out / DONE, list(self.done.values()))
        self.measure()
        sound = [entry for entry in self.entries if entry.id in self.frames]
        plan = self.model.plan([self.frames[e.id] for e in sound], self.options.candidates)
        with tqdm.tqdm(
            total=len(sound), initial=len(self.done), unit="item", desc="separate"
        ) as bar:
            for group in plan:
                members = [sound[place] for place in group.items]
                wanted = [entry for entry in members if entry.id not in self.done]
                items = self.read(wanted)
                if items:
                    self.solve(group, members, items)
                bar.update(len(wanted))
        if self.failed:
            self.failed = {e.id: self.failed[e.id] for e in self.entries if e.id in self.failed}
            lines = [{"id": name, "reason": reason} for name, reason in self.failed.items()]
            _write_whole(self.out / FAILED, lines)
        else:
            (self.out / FAILED).unlink(missing_ok=True)
        return self.failed

    def measure(self) -> None:
        """Frames of every item; those that cannot be read fail."""
        todo = [entry for entry in self.entries if entry.id not in self.done]
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda entry: self.item(entry, see=False), todo)
            found = dict(zip([entry.id for entry in todo], read, strict=True))
        for entry in self.entries:
            if entry.id in self.done:
                self.frames[entry.id] = self.done[entry.id]["frames"]
            elif isinstance(item := found.pop(entry.id), int):
                self.frames[entry.id] = item

    def read(self, entries: Sequence[Entry]) -> dict[str, Item]:
        """The items of a group that are still to be made and can be."""
        items = {entry.id: self.item(entry, see=True) for entry in entries}
        return {name: item for name, item in items.items() if isinstance(item, Item)}

    def item(self, entry: Entry, *, see: bool) -> Item | int | None:
        """The whole item, or without looking at its video only its frames; None if it fails."""
        try:
            item = self.model.item(
                entry.audio,
                entry.text,
                entry.spans,
                video=entry.video,
                mask=entry.mask,
                mask_keeps=self.mask_keeps,
                name=entry.id,
                see=see,
            )
            self.model.check(item, self.options)
        except UserError as error:
            self.failed[entry.id] = str(error)
            return None
        return item if see else self.model.frames(item)

    def solve(self, group: Group, members: Sequence[Entry], items: dict[str, Item]) -> None:
        """Solves a group whole and writes the stems of `items`; rows done before are only filled.

        A row's result depends on the shape of the batch, not on the other rows' contents.
        """
        like = next(iter(items.values()))
        rows = [items.get(entry.id) or self.stand_in(like, entry) for entry in members]
        stems = self.model.solve_group(group, rows, self.options)
        with (self.out / DONE).open("a", encoding="utf-8") as ledger:
            for entry, made in zip(members, stems, strict=True):
                if entry.id in items:
                    self.write(entry, items[entry.id], made, ledger)

    def stand_in(self, like: Item, entry: Entry) -> Item:
        """Something of the item's shape, with as many spans and with features if it has them."""
        frames = self.frames[entry.id]
        spans = self.done[entry.id]["spans"] if entry.id in self.done else entry.spans
        width = self.model.networks.separator.config.video_width
        return dataclasses.replace(
            like,
            wave=np.zeros(frames * self.model.networks.codec.config.hop, np.float32),
            text=entry.text or "",
            spans=tuple((token, start, end) for token, start, end in spans),
            features=None if entry.video is None else np.zeros((frames, width), np.float32),
        )

    def write(self, entry: Entry, item: Item, stems: Stems, ledger: TextIO) -> None:
        """All files, then the line that says so, on disk before the next item."""
        try:
            files = write_stems(self.out, item, stems, f"{entry.id}.")
        except UserError as error:  # a video that cannot be copied
            self.failed[entry.id] = str(error)
            return
        record = {"id": entry.id, "frames": self.frames[entry.id]}
        record |= {"sample_rate": stems.sample_rate, "files": files, "spans": stems.spans}
        if stems.scores is not None:
            record |= {"scores": stems.scores.tolist()}
        ledger.write(json.dumps(record | {"item": entry.line}) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


def _read_done(out: pathlib.Path, entries: Sequence[Entry]) -> dict[str, dict]:
    """Finished items whose line in the manifest is unchanged and whose files are there."""
    lines = {entry.id: entry.line for entry in entries}
    done: dict[str, dict] = {}
    if not (out / DONE).is_file():
        return done
    for line in (out / DONE).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            name, item, files = record["id"], record["item"], record["files"]
        except (ValueError, KeyError, TypeError):  # a line that a kill cut short
            continue
        if lines.get(name) == item and all((out / file).is_file() for file in files):
            done[name] = record
    return done


def _write_whole(path: pathlib.Path, records: Sequence[dict]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    part.replace(path)
