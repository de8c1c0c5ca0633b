"""Many items from a JSONL manifest: grouped by length, resumable, one bad item stops no other.

What is solved together depends on the manifest alone (and on the devices of a process), not on what
is done already nor on how many processes share the work, so a run that was killed and started
again, with as many or other processes, leaves the same bytes as one that was not. Whole groups are
dealt out to the processes, which know nothing of each other: one that dies delays no other.
"""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from sam_audio_jax.distributed import ProcessRank
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item, parse_spans
from sam_audio_jax.infer.ledger import Ledger, write_whole
from sam_audio_jax.infer.lengths import measure
from sam_audio_jax.infer.options import Options
from sam_audio_jax.infer.output import write_stems
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.separator.prompts import Span

KEYS = ("id", "audio", "text", "spans", "video", "mask")
FILES = ("audio", "video", "mask")
SETTINGS = "settings.json"


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
    if all(file.suffix == ".part" for file in out.iterdir()):  # another process is just before us
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
    model: SAMAudio,
    entries: Sequence[Entry],
    out: pathlib.Path,
    settings: Settings,
    place: ProcessRank | None = None,
) -> dict[str, str]:
    """Separates into `out` what is not done yet and this process's to do; id -> why it failed.

    Each item leaves `ID.target.wav`, `ID.residual.wav`, with a video file that with the target as
    its sound, and then its line in the ledger. Without `place` all items are this process's.
    """
    options, place = settings.options(model), place or ProcessRank()
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{SETTINGS}.{place.index}.part"
    write_whole(part, [dataclasses.asdict(settings)], out / SETTINGS)
    return _Run(model, entries, out, options, settings.mask_keeps, place).run()


class _Run:
    """One go over a manifest."""

    def __init__(
        self,
        model: SAMAudio,
        entries: Sequence[Entry],
        out: pathlib.Path,
        options: Options,
        mask_keeps: str,
        place: ProcessRank,
    ):
        self.model, self.entries, self.out = model, entries, out
        self.options, self.mask_keeps, self.place = options, mask_keeps, place
        self.ledger = Ledger(out, {entry.id: entry.line for entry in entries}, place)
        self.failed: dict[str, str] = {}
        self.frames: dict[str, int] = {}  # of every item that can be read

    def run(self) -> dict[str, str]:
        self.measure()
        sound = [entry for entry in self.entries if entry.id in self.frames]
        plan = self.model.plan([self.frames[e.id] for e in sound], self.options.candidates)
        mine = plan[self.place.index :: self.place.count]
        done = self.ledger.done
        total = sum(len(group.items) for group in mine)
        before = sum(sound[place].id in done for group in mine for place in group.items)
        with _Progress(total, before, self.place) as progress:
            for group in mine:
                members = [sound[place] for place in group.items]
                wanted = [entry for entry in members if entry.id not in done]
                items = self.read(wanted)
                self.solve(group, members, items)
                rate = self.model.sample_rate
                progress.advance(len(wanted), math.fsum(len(x.wave) / rate for x in items.values()))
        self.failed = {e.id: self.failed[e.id] for e in self.entries if e.id in self.failed}
        self.ledger.close(self.failed)
        return self.failed

    def measure(self) -> None:
        """Frames of every item; process 0 answers for those that have none."""
        codec = self.model.networks.codec.config
        todo = [entry for entry in self.entries if entry.id not in self.ledger.done]
        found, unreadable = measure([entry.audio for entry in todo], self.out, self.place)
        for entry in self.entries:
            if entry.id in self.ledger.done:
                self.frames[entry.id] = self.ledger.done[entry.id][0]
            elif entry.audio in found:
                samples, rate = found[entry.audio]
                self.frames[entry.id] = codec.frames(math.ceil(samples * codec.sample_rate / rate))
            elif self.place.index == 0:
                self.failed[entry.id] = unreadable[entry.audio]

    def read(self, entries: Sequence[Entry]) -> dict[str, Item]:
        """The items of a group that are still to be made and can be."""
        items = {entry.id: self.item(entry) for entry in entries}
        return {name: item for name, item in items.items() if item is not None}

    def item(self, entry: Entry) -> Item | None:
        """The whole item, with what its video shows; None if it fails."""
        try:
            item = self.model.item(
                entry.audio,
                entry.text,
                entry.spans,
                video=entry.video,
                mask=entry.mask,
                mask_keeps=self.mask_keeps,
                name=entry.id,
            )
            self.model.check(item, self.options)
        except UserError as error:
            self.failed[entry.id] = str(error)
            return None
        return item

    def solve(self, group: Group, members: Sequence[Entry], items: dict[str, Item]) -> None:
        """Solves a group whole and writes the stems of `items`; other rows are only filled.

        A row's result depends on the shape of the batch, not on the other rows' contents. An item
        that is not as long as its header said is solved alone.
        """
        fitting = {
            name: item
            for name, item in items.items()
            if self.model.frames(item) == self.frames[name]
        }
        if fitting:
            like = next(iter(fitting.values()))
            rows = [fitting.get(entry.id) or self.stand_in(like, entry) for entry in members]
            self.write(members, fitting, self.model.solve_group(group, rows, self.options))
        for entry in members:
            if entry.id in items and entry.id not in fitting:
                item = items[entry.id]
                (alone,) = self.model.plan([self.model.frames(item)], self.options.candidates)
                stems = self.model.solve_group(alone, [item], self.options)
                self.write([entry], {entry.id: item}, stems)

    def stand_in(self, like: Item, entry: Entry) -> Item:
        """Something of the item's shape, with as many spans and with features if it has them."""
        frames = self.frames[entry.id]
        done = self.ledger.done
        spans = done[entry.id][1] if entry.id in done else entry.spans
        width = self.model.networks.separator.config.video_width
        return dataclasses.replace(
            like,
            wave=np.zeros(frames * self.model.networks.codec.config.hop, np.float32),
            text=entry.text or "",
            spans=tuple((token, start, end) for token, start, end in spans),
            features=None if entry.video is None else np.zeros((frames, width), np.float32),
        )

    def write(
        self, members: Sequence[Entry], items: dict[str, Item], made: Sequence[Stems]
    ) -> None:
        """Of each item all files, then the line that says so."""
        for entry, stems in zip(members, made, strict=True):
            if entry.id not in items:
                continue
            try:
                files = write_stems(self.out, items[entry.id], stems, f"{entry.id}.")
            except UserError as error:  # a video that cannot be copied
                self.failed[entry.id] = str(error)
                continue
            record = {"id": entry.id, "frames": self.frames[entry.id]}
            record |= {"sample_rate": stems.sample_rate, "files": files, "spans": stems.spans}
            if stems.scores is not None:
                record |= {"scores": stems.scores.tolist()}
            self.ledger.record(record)


class _Progress:
    """A bar on stderr with items and seconds of sound per second, and the time left."""

    def __init__(self, total: int, before: int, place: ProcessRank):
        who = "separate" if place.count == 1 else f"separate {place.index}/{place.count}"
        self.bar = tqdm.tqdm(total=total, initial=before, unit="item", desc=who)
        self.start, self.seconds = time.monotonic(), 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def advance(self, items: int, seconds: float) -> None:
        """So many items are through, in which so much sound was separated."""
        self.seconds += seconds
        pace = self.seconds / max(time.monotonic() - self.start, 1e-9)
        self.bar.set_postfix_str(f"{pace:.1f} s of sound per s", refresh=False)
        self.bar.update(items)
