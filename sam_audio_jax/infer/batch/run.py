"""A batch run over a manifest: grouped by length, resumable, a bad item stops no other.

The groups that are solved together follow from the manifest alone (and from the devices of a
process), neither from what is done already nor from how many processes share the work. So a run
that was killed and continued, by as many processes or others, leaves the same bytes as an
uninterrupted one. Whole groups are dealt out to the processes, which do not communicate: one that
dies delays no other. Processes that see other files than the others (a mount that came late) have
other plans, so the one that ends last does the items that are in nobody's share.
"""

import dataclasses
import math
import os
import pathlib
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax.bounds import Checked
from sam_audio_jax.errors import UserError, describe, shown
from sam_audio_jax.files import (
    check_writable,
    disk_is_full,
    is_part,
    place_error,
    read_json,
    read_object,
    write_json,
    writing_to,
)
from sam_audio_jax.infer.batch.ledger import Ledger
from sam_audio_jax.infer.batch.lengths import measure
from sam_audio_jax.infer.batch.stamps import find_stamps
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.effective_settings import effective_settings
from sam_audio_jax.infer.inputs import Item, notes_of
from sam_audio_jax.infer.manifest import FILES, BadLine, Entry
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.other_networks import networks_of
from sam_audio_jax.infer.output import file_names, write_stems
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems, TextStems
from sam_audio_jax.nn.fingerprint import fingerprint, in_saved_form, same_weights
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.progress_bar import progress_bar

SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Checked, where=""):
    """Settings that a folder of results depends on; every run into it must have the same."""

    checkpoint: str
    span_predictor: str | None = None
    rankers: dict[str, str] | None = None  # by kind, in place of those of the checkpoint
    adapters: list[str] | None = None  # FOLDER or FOLDER:SCALE, added to the checkpoint's weights
    stems: list[str] | None = None  # texts of lines without one
    dtype: str = "float32"  # in which the matrices are kept
    options: SeparateOptions = dataclasses.field(default_factory=SeparateOptions)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of SETTINGS: one level, the options among the others."""
        names = ("checkpoint", "span_predictor", "rankers", "adapters", "stems", "dtype")
        return {name: getattr(self, name) for name in names} | self.options.to_dict()


def check_run_folder(out: pathlib.Path, settings: Settings) -> None:
    """Raises UserError unless `out` is missing, empty, or of a run with the same settings.

    It must also be possible to write there.
    """
    check_writable(out, "--out")
    if not out.exists():
        return
    if all(is_part(path.name) for path in out.iterdir()):  # another process is writing SETTINGS
        return
    try:
        saved = read_json(out / SETTINGS)
    except UserError:
        raise UserError(f"{out} holds other files and no run of a manifest") from None
    now = settings.to_dict()
    then = Settings(checkpoint="").to_dict() | saved  # older runs had fewer settings
    changed = [
        f"{key}: then {then[key]!r}, now {value!r}"
        for key, value in now.items()
        if then[key] != value
    ]
    if changed:
        raise UserError(f"{out} holds a run with other settings ({'; '.join(changed)})")


def _check_model(
    saved: Mapping[str, Any],
    out: pathlib.Path,
    *,
    weights: str,
    config: Mapping[str, Any],
    networks: Mapping[str, Any],
) -> None:
    """Raises UserError where the results in `out` are of other weights or another config.

    `saved` is the content of SETTINGS there, in which older runs name none.
    """
    then = saved.get("weights")
    if then is not None and not same_weights(str(then), weights):
        raise UserError(
            f"{out} holds a run with other weights of the checkpoint (then {then}, now {weights}); "
            "choose another folder"
        )
    before = saved.get("config")
    if isinstance(before, dict) and before != config:
        changed = [
            f"{key}: then {shown(before.get(key))}, now {shown(value)}"
            for key, value in config.items()
            if before.get(key) != value
        ]
        raise UserError(
            f"{out} holds a run in which the checkpoint's own config was another one "
            f"({'; '.join(changed)}); choose another folder"
        )
    for name, network in saved.get("networks", {}).items():
        if in_saved_form(networks.get(name, network), network) != network:
            raise UserError(
                f"{out} holds a run with another {name.replace('_', ' ')} (then {shown(network)}, "
                f"now {shown(networks[name])}); choose another folder"
            )


def _check_inputs(entries: Sequence[Entry], out: pathlib.Path) -> None:
    """Raises UserError for an input that the run itself writes: it would be lost."""
    kinds = ("target", "residual", "rest")
    results = {f"{name}.{kind}" for entry in entries for name in entry.prefixes for kind in kinds}
    folder = os.path.realpath(out)
    for entry in entries:
        for key in FILES:
            path = getattr(entry, key)
            if path is None:
                continue
            real = pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path
            if real.stem in results and os.path.realpath(real.parent) == folder:
                raise UserError(
                    f"the {key} of {entry.id}, {path}, is a file of results of this run: choose "
                    "another folder for them"
                )


def run(
    model: SAMAudio,
    entries: Sequence[Entry],
    out: pathlib.Path,
    settings: Settings,
    rank: ProcessRank | None = None,
    bad_lines: Sequence[BadLine] = (),
) -> dict[str, str]:
    """Separates, into `out`, the items of this process that are not done; id -> why it failed.

    Each item leaves `ID.target.wav`, `ID.residual.wav`, with a video file a copy of that with the
    target as its sound, and then its line in the ledger. An item with several texts leaves
    `ID.TEXT.target.wav` and `ID.TEXT.residual.wav`, and with joint stems `ID.TEXT.target.wav` and
    perhaps `ID.rest.wav`. Without `rank` all items are this
    process's. `bad_lines` of the manifest are recorded as failures. Raises UserError where nothing
    more can be written, for results of other weights or of another config of the checkpoint (or of
    the networks beside it that the items need), and while another run writes to `out`.
    """
    _check_inputs(entries, out)
    weights = fingerprint(model.pipeline.networks)
    try:
        config = effective_settings(model.pipeline, settings.options)
        networks = networks_of(model.pipeline, settings.options, entries)
        before = read_object(out / SETTINGS) if (out / SETTINGS).is_file() else {}
        _check_model(before, out, weights=weights, config=config, networks=networks)
        networks = before.get("networks", {}) | networks  # other items may need others
        rank = rank or ProcessRank()
        with writing_to(out, writer=rank.index, writers=rank.count):
            saved = settings.to_dict() | {"weights": weights, "config": config}
            write_json(out / SETTINGS, saved | {"networks": networks})
            return _Run(model, entries, out, settings, rank, bad_lines).run()
    except OSError as error:
        if not (reason := place_error(error)):
            raise
        raise UserError(f"cannot write to {out}: {reason}") from None


class _Run:
    """One pass over a manifest."""

    def __init__(
        self,
        model: SAMAudio,
        entries: Sequence[Entry],
        out: pathlib.Path,
        settings: Settings,
        rank: ProcessRank,
        bad_lines: Sequence[BadLine],
    ):
        self.model, self.entries, self.out, self.rank = model, entries, out, rank
        self.pipeline, self.options = model.pipeline, settings.options
        self.pipeline.check_options(self.options)
        bad = [{"id": one.id, "line": one.number, "reason": one.reason} for one in bad_lines]
        lines = {entry.id: entry.line for entry in entries}
        self.ledger = Ledger(out, lines, rank, bad, find_stamps(entries))
        self.failed: dict[str, str] = {}  # id -> reason
        self.frames: dict[str, int] = {}  # id -> latent frames, for items that can be read

    def run(self) -> dict[str, str]:
        everything = {entry.id for entry in self.entries}
        self.measure(everything if self.rank.index == 0 else set())
        self.separate(everything, self.rank)
        self.close()
        if left := self.ledger.left():
            warnings.warn(
                f"items in no process's share: {len(left)}, such as {shown(left[0])}; the "
                "processes did not find the same files, and this one, the last, takes them",
                stacklevel=2,
            )
            self.measure(set(left))
            self.separate(set(left), ProcessRank())
            self.close()
        return self.failed

    def close(self) -> None:
        """Records the failures of this process, in the order of the manifest."""
        self.failed = {name: self.failed[name] for name in self.ledger.lines if name in self.failed}
        self.ledger.close(self.failed)

    def separate(self, wanted: set[str], rank: ProcessRank) -> None:
        """Separates the `wanted` items of a rank that can be read and are not done."""
        readable = [entry for entry in self.entries if entry.id in self.frames]
        plan = self.pipeline.plan(
            [self.frames[entry.id] for entry in readable],
            self.options.candidates,
            [max(2, len(entry.texts)) if entry.texts else 1 for entry in readable],
        )
        own_groups = [
            group
            for group in plan[rank.index :: rank.count]
            if any(readable[i].id in wanted for i in group.items)
        ]
        done = self.ledger.done
        total = sum(len(group.items) for group in own_groups)
        done_before = sum(readable[i].id in done for group in own_groups for i in group.items)
        rate = self.model.sample_rate
        with _Progress(total, done_before, self.rank) as progress:
            for group in own_groups:
                members = [readable[i] for i in group.items]
                pending = [e for e in members if e.id in wanted and e.id not in done]
                if members[0].texts:
                    items = [item for entry in pending for item in self.solve_texts(group, entry)]
                else:
                    found = self.read(pending)
                    self.solve(group, members, found)
                    items = list(found.values())
                seconds = math.fsum(len(item.wave) / rate for item in items)
                progress.advance(len(pending), seconds)

    def measure(self, wanted: set[str]) -> None:
        """Fills `frames`; `wanted` items that cannot be read are failures of this process."""
        codec = self.model.codec.config
        pending = [entry for entry in self.entries if entry.id not in self.ledger.done]
        sources = [(entry.audio, entry.track) for entry in pending]
        lengths, unreadable = measure(sources, self.out, self.rank)
        for entry in self.entries:
            source = entry.audio, entry.track
            if entry.id in self.ledger.done:
                self.frames[entry.id] = self.ledger.done[entry.id][0]
            elif source in lengths:
                samples, rate = lengths[source]
                self.frames[entry.id] = codec.frames(math.ceil(samples * codec.sample_rate / rate))
            elif entry.id in wanted:
                self.failed[entry.id] = unreadable[source]

    def solve_texts(self, group: Group, entry: Entry) -> list[Item]:
        """Solves an entry with several texts, which has its group for itself, and writes its stems.

        Returns an item of it; none, with the reason in `failed`, if it fails.
        """
        texts = [text for text, _ in entry.texts]
        spans = [spans for _, spans in entry.texts]
        try:
            items = self.model.items(
                entry.audio, texts, spans, options=self.options, track=entry.track, name=entry.id
            )
            for item in items:
                self.pipeline.check(item, self.options)
            frames = self.pipeline.frames(items[0])
            if frames != self.frames[entry.id]:  # its header was wrong
                (group,) = self.pipeline.plan([frames], self.options.candidates, [len(texts) + 1])
            stems = self.pipeline.solve_texts(group, items, self.options)
        except Exception as error:  # whatever it is: it stops no other item
            self.failed[entry.id] = describe(error)
            return []
        noted = dataclasses.replace(items[0].recording, notes=notes_of(items))
        item = dataclasses.replace(items[-1], recording=noted)
        self.write([entry], {entry.id: item}, [stems])
        return items[:1]

    def read(self, entries: Sequence[Entry]) -> dict[str, Item]:
        """Returns the items of these entries by id, without those that fail."""
        items = {entry.id: self.item(entry) for entry in entries}
        return {name: item for name, item in items.items() if item is not None}

    def item(self, entry: Entry) -> Item | None:
        """Returns the item with the features of its video; None, and a reason, if it fails."""
        try:
            item = self.model.item(
                entry.audio,
                entry.text,
                entry.spans,
                track=entry.track,
                video=entry.video,
                mask=entry.mask,
                like=entry.like,
                mask_keeps=self.options.mask_keeps,
                name=entry.id,
            )
            self.pipeline.check(item, self.options)
        except Exception as error:  # whatever it is: it stops no other item
            self.failed[entry.id] = describe(error)
            return None
        return item

    def solve(self, group: Group, members: Sequence[Entry], items: dict[str, Item]) -> None:
        """Solves a whole group and writes the stems of `items`; other rows are placeholders.

        A row's result depends on the shape of the batch, not on the contents of other rows. An item
        whose length differs from what its header says is solved alone.
        """
        as_planned = {
            name: item
            for name, item in items.items()
            if self.pipeline.frames(item) == self.frames[name]
        }
        if as_planned:
            self.solve_rows(group, members, as_planned)
        for entry in members:
            if entry.id in items and entry.id not in as_planned:
                frames = self.pipeline.frames(items[entry.id])
                (alone,) = self.pipeline.plan([frames], self.options.candidates)
                self.solve_rows(alone, [entry], {entry.id: items[entry.id]})

    def solve_rows(self, group: Group, members: Sequence[Entry], items: dict[str, Item]) -> None:
        """Solves a group and writes the stems of `items`; each for itself where they fail together.

        That leaves the same bytes, because an item keeps its row and the others are placeholders.
        """
        like = next(iter(items.values()))
        try:
            rows = [items.get(entry.id) or self.placeholder(like, entry) for entry in members]
            results = self.pipeline.solve_group(group, rows, self.options)
        except Exception as error:
            if len(items) == 1:
                (name,) = items
                self.failed[name] = describe(error)
                return
            for name, item in items.items():
                self.solve_rows(group, members, {name: item})
            return
        self.write(members, items, results)

    def placeholder(self, like: Item, entry: Entry) -> Item:
        """Returns silence in the shape of an item, with as many spans and with features if any."""
        frames = self.frames[entry.id]
        done = self.ledger.done
        spans = done[entry.id][1] if entry.id in done else entry.spans
        width = self.pipeline.video_width
        return dataclasses.replace(
            like,
            wave=np.zeros(frames * self.model.codec.config.hop, np.float32),
            text=entry.text or "",
            spans=tuple((token, start, end) for token, start, end in spans),
            features=None if entry.video is None else np.zeros((frames, width), np.float32),
            like=None if entry.like is None else np.zeros(self.pipeline.text_width, np.float32),
            placeholder=True,
        )

    def write(
        self,
        members: Sequence[Entry],
        items: dict[str, Item],
        results: Sequence[Stems | TextStems],
    ) -> None:
        """Writes all files of each of `items`, then its line in the ledger."""
        for entry, stems in zip(members, results, strict=True):
            if entry.id not in items:
                continue
            try:
                files = write_stems(self.out, items[entry.id], stems, f"{entry.id}.")
            except Exception as error:  # a video that cannot be copied
                if disk_is_full(error):
                    raise
                self.failed[entry.id] = describe(error)
                continue
            record = {"id": entry.id, "frames": self.frames[entry.id]}
            record |= {"sample_rate": stems.sample_rate, "files": files}
            if isinstance(stems, TextStems):
                names = file_names(list(stems))
                parts = zip(names, stems.items(), strict=True)
                texts = [
                    {"text": text, "name": name} | _details(one) for name, (text, one) in parts
                ]
                record |= {"spans": (), "texts": texts}
            else:
                record |= _details(stems)
            if notes := (*items[entry.id].recording.notes, *stems.notes):
                record |= {"notes": tuple(dict.fromkeys(notes))}
            self.ledger.record(record)


def _details(stems: Stems) -> dict[str, Any]:
    """The spans and the scores of the candidates of one prompt, for the ledger."""
    scores = {} if stems.scores is None else {"scores": stems.scores.tolist()}
    return {"spans": stems.spans} | scores


class _Progress:
    """A bar on stderr: items, seconds of sound per second, and the time left."""

    def __init__(self, total: int, done: int, rank: ProcessRank):
        title = "separate" if rank.count == 1 else f"separate {rank.index}/{rank.count}"
        self.bar = progress_bar(total=total, initial=done, unit="item", desc=title)
        self.start, self.seconds = time.monotonic(), 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def advance(self, items: int, seconds: float) -> None:
        """Adds items that are finished or failed, and the seconds of sound separated for them."""
        self.seconds += seconds
        speed = self.seconds / max(time.monotonic() - self.start, 1e-9)
        self.bar.set_postfix_str(f"{speed:.1f} s of sound per s", refresh=False)
        self.bar.update(items)
