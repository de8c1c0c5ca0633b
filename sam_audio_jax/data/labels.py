"""Pseudo-labels on disk: real mixtures with generated stems, and every score of them.

A folder of labels is made by `sam-audio label` (docs/data.md, "Pseudo-labels"):

    plan.json            what the labels depend on, from the first start on
    00003.arrayrecord    the labels of `per_shard` inputs, then one record that has an entry for
                         every one of these inputs: its scores, or the reason why it has no label
    labels.json          the plan and the number of shards, once all are there
    scores.jsonl         the entries of all shards, a line each, made from them
    report.html          what each filter would drop, and examples to listen to

No threshold was applied when the labels were made; `LabelCache` applies those of its config.
"""

import concurrent.futures
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgpack
import numpy as np
from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Int, UInt64

from sam_audio_jax.data.config import LabelConfig
from sam_audio_jax.data.label_scores import failing
from sam_audio_jax.data.recording_table import key_of
from sam_audio_jax.data.records import Record, pack, unpack
from sam_audio_jax.errors import UserError, first_line, shown
from sam_audio_jax.files import check_format, iter_jsonl, read_json, whole_file, write_jsonl

FORMAT = 1
PLAN, INDEX, SCORES = "plan.json", "labels.json", "scores.jsonl"
SHARDS = "[0-9]*.arrayrecord"
READERS = 16  # shards opened at once: the time goes into waiting for a disk or a network
PROBE_FRAMES = 100  # of the noise by whose latents the codec is recognised
DRAW = 6  # generator (seed, DRAW) of the labels that are drawn from those that pass

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LabelledRecord(Record):
    """A real mixture and generated stems, which need not add up to it; the residual has no name."""

    id: str = ""
    # kind, text, spans, and whether there was a video.
    prompt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Null: not computed, which no threshold passes.
    scores: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    checkpoint: str = ""  # that generated the stems


def pack_label(label: LabelledRecord) -> bytes:
    """Returns a label as bytes (msgpack)."""
    fields = {
        "kind": "labelled",
        "record": pack(label),
        "id": label.id,
        "prompt": dict(label.prompt),
        "scores": dict(label.scores),
        "checkpoint": label.checkpoint,
    }
    return cast(bytes, msgpack.packb(fields))


def unpack_label(data: bytes) -> LabelledRecord:
    """Returns the label that `pack_label` made bytes of; its arrays are read-only."""
    fields = msgpack.unpackb(data)
    if not isinstance(fields, dict) or fields.get("kind") != "labelled":
        raise ValueError("the record is no label")
    record = unpack(fields["record"])
    own = {field.name: getattr(record, field.name) for field in dataclasses.fields(Record)}
    named = {name: fields[name] for name in ("id", "prompt", "scores", "checkpoint")}
    return LabelledRecord(**own, **named)


def shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The file of one shard."""
    return folder / f"{number:05d}.arrayrecord"


def write_shard(
    path: pathlib.Path, labels: Sequence[bytes], entries: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the labels of one shard and its entries, whole or not at all."""
    with whole_file(path) as part:
        writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1,uncompressed")
        try:
            for label in labels:
                writer.write(label)
            writer.write(msgpack.packb({"kind": "entries", "entries": list(entries)}))
        finally:
            writer.close()


def read_entries(path: pathlib.Path) -> list[dict[str, Any]]:
    """The entries of one shard. Raises `UserError` for a damaged one."""
    try:
        source = array_record_data_source.ArrayRecordDataSource([str(path)])
        fields = msgpack.unpackb(source[len(source) - 1])
        if fields["kind"] != "entries":
            raise ValueError("its last record has no entries")
        return fields["entries"]
    except (RuntimeError, ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        reason = first_line(error)
        raise UserError(f"{path} is damaged, delete it and label again: {reason}") from None


def all_entries(folder: pathlib.Path, shards: int) -> Iterator[dict[str, Any]]:
    """The entries of all shards, one after the other, each with the number of its shard."""
    paths = [shard_path(folder, number) for number in range(shards)]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for start in range(0, shards, READERS):
            found = pool.map(read_entries, paths[start : start + READERS])
            for number, entries in enumerate(found, start):
                yield from ({"shard": number} | entry for entry in entries)


def read_labels_index(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of `labels.json`. Raises `UserError` if the folder holds no finished labels."""
    path = pathlib.Path(folder) / INDEX
    if not path.is_file():
        raise UserError(f"no finished pseudo-labels in {folder}; make them with `sam-audio label`")
    index = read_json(path)
    check_format(path, index, FORMAT)
    return index


class LabelCache:
    """Random access to the labels of a folder that pass a config's thresholds.

    Damaged records are None. Picklable; its interface is that of `shards.Cache`.
    """

    def __init__(self, config: LabelConfig, seed: int):
        """Raises `UserError` for a folder without finished labels, for one of which no label
        passes, for a threshold on a score that a label does not have, and for more labels wanted
        (`data.labels.most`) than pass."""
        self.config, self.seed, self.folder = config, seed, config.folder
        folder = pathlib.Path(config.folder)
        index = read_labels_index(folder)
        self.index: dict[str, Any] = index | {"segment_s": 0.0}  # no teacher has seen them
        paths = [shard_path(folder, number) for number in range(index["shards"])]
        entries = _read_scores(folder / SCORES)
        self._numbers, self._keys, records = _passing(entries, config, len(paths))
        if config.most > len(self._numbers):
            raise UserError(
                f"data.labels.most={config.most}, but {len(self._numbers)} labels of "
                f"{config.folder} pass"
            )
        if config.most:
            rng = np.random.default_rng((seed, DRAW))
            chosen = np.sort(rng.choice(len(self._numbers), config.most, replace=False))
            self._numbers, self._keys = self._numbers[chosen], self._keys[chosen]
        try:
            self._source = array_record_data_source.ArrayRecordDataSource([str(p) for p in paths])
        except (RuntimeError, FileNotFoundError) as error:
            reason = first_line(error)
            raise UserError(f"{folder} has a damaged shard, label again: {reason}") from None
        if len(self._source) != records:
            raise UserError(
                f"the shards of {folder} have {len(self._source)} records, and by {SCORES} they "
                f"have {records}: they are not of one run, label again"
            )

    def silence(self) -> Record:
        """Raises `UserError`: prompts for absent sounds need a latent cache."""
        raise UserError(
            "labels have no silence, the target of absent prompts (data.prompts.absent_share): "
            "give a data.cache beside data.labels.folder"
        )

    def __reduce__(self):
        return LabelCache, (self.config, self.seed)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> LabelledRecord | None:
        try:
            label = unpack_label(self._source[int(self._numbers[number])])
        except (RuntimeError, ValueError, KeyError, msgpack.UnpackException) as error:
            log.warning("skipped label %d of %s: %s", number, self.config.folder, error)
            return None
        if key_of(label.id) != self._keys[number]:
            raise UserError(
                f"{self.config.folder} has the label {shown(label.id)} where by {SCORES} another "
                "one is: its shards are not of one run, label again"
            )
        return label


def write_scores(folder: pathlib.Path, shards: int) -> int:
    """Writes `scores.jsonl` from the entries of all shards; returns their number."""
    return write_jsonl(folder / SCORES, all_entries(folder, shards))


def _read_scores(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing: run the same `sam-audio label` again")
    for _, entry in iter_jsonl(path):
        yield entry


def _passing(
    entries: Iterable[Mapping[str, Any]], config: LabelConfig, shards: int
) -> tuple[Int[np.ndarray, " passing"], UInt64[np.ndarray, " passing"], int]:
    """The labels that pass: their numbers over the records of all shards, and keys of their ids.

    The last is the number of all records.
    """
    thresholds = config.thresholds
    # Labels of each shard, and (shard, number in it) of those that pass.
    counts, passing = np.zeros(shards, np.int64), []
    for entry in entries:
        if "scores" not in entry:
            continue
        where = f"label {entry['id']} of {config.folder}"
        if not failing(entry["scores"], thresholds, where):
            place = entry["shard"], counts[entry["shard"]]
            passing.append((*place, key_of(entry["id"])))
        counts[entry["shard"]] += 1
    if not passing:
        limits = ", ".join(f"{name} {value:g}" for name, value in thresholds.items())
        raise UserError(
            f"none of the {int(counts.sum())} labels of {config.folder} passes"
            + (f" the thresholds {limits}" if limits else "")
        )
    starts = np.concatenate([[0], np.cumsum(counts + 1)])  # a shard ends with its entries
    numbers = np.array([starts[shard] + number for shard, number, _ in passing], np.int64)
    return numbers, np.array([key for _, _, key in passing], np.uint64), int(starts[-1])
