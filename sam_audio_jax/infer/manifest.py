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

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item, Span, parse_spans
from sam_audio_jax.infer.separate import SAMAudio, Stems

KEYS = ("id", "audio", "text", "spans")
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
    line: dict[str, Any]  # as it stood there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a folder of results was made with; another run into it must have the same."""

    checkpoint: str
    seed: int = 0
    method: str | None = None
    steps: int | None = None
    refine: str | None = None


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
    for key in ("id", "audio"):
        if not isinstance(fields.get(key), str) or not fields[key]:
            raise UserError(f"{where}: {key} must be a string, got {fields.get(key)!r}")
    name, text = fields["id"], fields.get("text")
    if name != os.path.basename(name) or name.startswith(".") or len(name) > 200:
        raise UserError(f"{where}: id {name!r} must serve as a file name")
    if not isinstance(text, str | None):
        raise UserError(f"{where}: text must be a string, got {text!r}")
    spans = parse_spans(fields.get("spans") or (), where)
    return Entry(name, folder / fields["audio"], text, spans, fields)


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
    changed = [f"{key}: then {saved.get(key)!r}, now {now[key]!r}" for key in now]
    changed = [line for key, line in zip(now, changed, strict=True) if saved.get(key) != now[key]]
    if changed:
        raise UserError(f"{out} was made with other settings ({'; '.join(changed)})")


def run(
    model: SAMAudio, entries: Sequence[Entry], out: pathlib.Path, settings: Settings
) -> dict[str, str]:
    """Separates what is not done yet into `out`; returns id -> reason of what failed.

    Each item leaves `ID.target.wav`, `ID.residual.wav` and then its line in `done.jsonl`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("*.part"):  # of a run that was killed while writing
        left.unlink()
    _write_whole(out / SETTINGS, [dataclasses.asdict(settings)])
    done = _read_done(out, entries)
    _write_whole(out / DONE, list(done.values()))
    failed: dict[str, str] = {}
    frames = _measure(model, entries, done, failed)
    sound = [entry for entry in entries if entry.id in frames]
    with tqdm.tqdm(total=len(sound), initial=len(done), unit="item", desc="separate") as bar:
        for group in model.plan([frames[entry.id] for entry in sound]):
            members = [sound[place] for place in group.items]
            wanted = [entry for entry in members if entry.id not in done]
            items = _read_all(model, wanted, failed)
            if items:
                _solve_group(model, group, members, items, frames, out, settings)
            bar.update(len(wanted))
    if failed:
        _write_whole(out / FAILED, [{"id": k, "reason": v} for k, v in failed.items()])
    else:
        (out / FAILED).unlink(missing_ok=True)
    return failed


def _read_done(out: pathlib.Path, entries: Sequence[Entry]) -> dict[str, dict]:
    """Finished items whose line in the manifest is unchanged and whose files are there."""
    lines = {entry.id: entry.line for entry in entries}
    done: dict[str, dict] = {}
    if not (out / DONE).is_file():
        return done
    for line in (out / DONE).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            name, item = record["id"], record["item"]
        except (ValueError, KeyError, TypeError):  # a line that a kill cut short
            continue
        files = [out / f"{name}.{stem}.wav" for stem in ("target", "residual")]
        if lines.get(name) == item and all(file.is_file() for file in files):
            done[name] = record
    return done


def _measure(
    model: SAMAudio, entries: Sequence[Entry], done: dict[str, dict], failed: dict[str, str]
) -> dict[str, int]:
    """Frames of every item that can be read; the others go to `failed` with the reason."""
    frames = {}
    todo = [entry for entry in entries if entry.id not in done]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda entry: _try_item(model, entry, keep=False), todo)
        found = dict(zip([entry.id for entry in todo], read, strict=True))
    for entry in entries:
        if entry.id in done:
            frames[entry.id] = done[entry.id]["frames"]
        elif isinstance(reason := found[entry.id], str):
            failed[entry.id] = reason
        else:
            frames[entry.id] = found[entry.id]
    return frames


def _read_all(model: SAMAudio, entries: Sequence[Entry], failed: dict[str, str]) -> dict[str, Item]:
    """The items of a group that are still to be made."""
    items = {}
    for entry in entries:
        item = _try_item(model, entry, keep=True)
        if isinstance(item, Item):
            items[entry.id] = item
        else:
            failed[entry.id] = str(item)
    return items


def _try_item(model: SAMAudio, entry: Entry, *, keep: bool) -> Item | int | str:
    """The item, or only its frames, or why there is none."""
    try:
        item = model.item(entry.audio, entry.text, entry.spans, name=entry.id)
    except UserError as error:
        return str(error)
    return item if keep else model.frames(item)


def _solve_group(
    model: SAMAudio,
    group: Group,
    members: Sequence[Entry],
    items: dict[str, Item],
    frames: dict[str, int],
    out: pathlib.Path,
    settings: Settings,
) -> None:
    """Solves a group whole and writes the stems of `items`; rows done before are only filled.

    A row's result depends on the shape of the batch, not on the other rows' contents.
    """
    like = next(iter(items.values()))
    rows = [items.get(entry.id) or _stand_in(like, entry, frames, model) for entry in members]
    stems = model.solve_group(
        group,
        rows,
        method=settings.method,
        steps=settings.steps,
        seed=settings.seed,
        refine=settings.refine,
    )
    with (out / DONE).open("a", encoding="utf-8") as ledger:
        for entry, pair in zip(members, stems, strict=True):
            if entry.id in items:
                _write_item(out, entry, pair, frames[entry.id], ledger)


def _stand_in(like: Item, entry: Entry, frames: dict[str, int], model: SAMAudio) -> Item:
    wave = np.zeros(frames[entry.id] * model.networks.codec.config.hop, np.float32)
    spans = tuple(entry.spans)
    return dataclasses.replace(like, wave=wave, text=entry.text or "", spans=spans)


def _write_item(out: pathlib.Path, entry: Entry, stems: Stems, frames: int, ledger: TextIO) -> None:
    """Both waves, then the line that says so, on disk before the next item."""
    for name in ("target", "residual"):
        wave = np.atleast_2d(getattr(stems, name))
        audio.write_wav(out / f"{entry.id}.{name}.wav", wave, stems.sample_rate)
    record = {"id": entry.id, "frames": frames, "sample_rate": stems.sample_rate}
    ledger.write(json.dumps(record | {"item": entry.line}) + "\n")
    ledger.flush()
    os.fsync(ledger.fileno())


def _write_whole(path: pathlib.Path, records: Sequence[dict]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    part.replace(path)
