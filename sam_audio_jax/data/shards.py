"""The latent cache: mixtures rendered and encoded once, in ArrayRecord shards.

`FOLDER/cache.json` describes a finished cache, `plan.json` the same of one that is being made;
`FOLDER/00003.arrayrecord` holds `per_shard` records of msgpack with float16 latents and, if there
was a teacher, its features of target and residual. A shard appears when it is complete, so a killed
run loses one shard.

Format 2 (`format` in both files; absent: 1) has the recipe in parts, as `DataConfig` has, and
records with `target_features`, which format 1 calls `target_heard`. Both are read, and a cache of
format 1 can be extended; its old shards stay as they are.
"""

import concurrent.futures
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgpack
import numpy as np
import tqdm
from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Bool, Float, Float16

from sam_audio_jax.data import energy
from sam_audio_jax.data.mix import Mixture
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_format, read_json
from sam_audio_jax.saved_config import migrated_recipe

A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger(__name__)

SIGNALS = ("mixture", "target", "residual")
FORMAT = 2
FEATURES = {"target_features": "target_heard", "residual_features": "residual_heard"}  # format 1
CHECKED = ("sample_rate", "hop", "samples", "channels", "codec", "recipe", "per_shard", "teacher")
PROBE_TOLERANCE = 0.05  # of latents of one noise, between the codec then and now

Encode = Callable[[Float[np.ndarray, "batch samples"]], Float[np.ndarray, "batch frames channels"]]


@dataclasses.dataclass(frozen=True)
class Record:
    """One encoded mixture; frames cover whole hops."""

    mixture: Float16[np.ndarray, "frames channels"]
    target: Float16[np.ndarray, "frames channels"]
    residual: Float16[np.ndarray, "frames channels"]
    target_texts: tuple[str, ...]
    residual_texts: tuple[str, ...]  # none: the residual is no target
    target_active: Bool[np.ndarray, " frames"]
    residual_active: Bool[np.ndarray, " frames"]
    category: str
    # Features of the teacher; None: made without one, or the residual is no target.
    target_features: Float16[np.ndarray, "segments width"] | None = None
    residual_features: Float16[np.ndarray, "segments width"] | None = None


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The teacher of the alignment loss; `name` and `segment_s` are written to the index."""

    name: str
    segment_s: float  # seconds from one segment to the next
    features: Callable[
        [Float[np.ndarray, "batch samples"]], Float[np.ndarray, "batch segments width"]
    ]


def pack(record: Record) -> bytes:
    """Returns a record as bytes."""
    fields: dict[str, Any] = {name: getattr(record, name).tobytes() for name in SIGNALS}
    fields |= {
        "channels": record.mixture.shape[-1],
        "target_texts": record.target_texts,
        "residual_texts": record.residual_texts,
        "target_active": np.packbits(record.target_active).tobytes(),
        "residual_active": np.packbits(record.residual_active).tobytes(),
        "category": record.category,
    }
    for name in FEATURES:
        if (features := getattr(record, name)) is not None:
            fields |= {name: features.tobytes(), "width": features.shape[-1]}
    return cast(bytes, msgpack.packb(fields))


def unpack(data: bytes) -> Record:
    """Returns the record of `pack`, of any format; its arrays are read-only."""
    fields = msgpack.unpackb(data)
    latents = {
        name: np.frombuffer(fields[name], np.float16).reshape(-1, fields["channels"])
        for name in SIGNALS
    }
    features = {
        name: np.frombuffer(fields[stored], np.float16).reshape(-1, fields["width"])
        for name, old_name in FEATURES.items()
        for stored in (name, old_name)
        if stored in fields
    }
    frames = len(latents["mixture"])

    def active(name: str) -> Bool[np.ndarray, " frames"]:
        return np.unpackbits(np.frombuffer(fields[name], np.uint8), count=frames).astype(bool)

    return Record(
        **latents,
        **features,
        target_texts=tuple(fields["target_texts"]),
        residual_texts=tuple(fields["residual_texts"]),
        target_active=active("target_active"),
        residual_active=active("residual_active"),
        category=fields["category"],
    )


def write_cache(
    folder: str | os.PathLike,
    mixture: Callable[[int], Mixture],
    encode: Encode,
    *,
    items: int,
    sample_rate: int,
    hop: int,
    samples: int,
    codec: str,
    recipe: dict[str, Any],
    per_shard: int = 64,
    batch: int = 8,
    teacher: Teacher | None = None,
) -> None:
    """Renders and encodes mixtures `0 .. items - 1`; shards that are there are not made again.

    `encode` gets 3 * `batch` waves at a time, `teacher` 2 * `batch`. `items` is rounded up to whole
    shards. UserError if the folder holds a cache of another codec, teacher, recipe or size.
    """
    folder = pathlib.Path(folder)
    probe = _probe(encode, 3 * batch, samples)
    if probe.shape[1] * hop != samples:
        raise UserError(
            f"codec {codec} makes {probe.shape[1]} frames of {samples} samples, not {samples / hop}"
        )
    plan = {
        "format": FORMAT,
        "sample_rate": sample_rate,
        "hop": hop,
        "samples": samples,
        "channels": probe.shape[-1],
        "codec": codec,
        "recipe": recipe,
        "per_shard": per_shard,
        "teacher": teacher.name if teacher else "",
        "segment_s": teacher.segment_s if teacher else 0.0,
        "probe": [float(value) for value in probe[0].ravel()[:16]],
    }
    done = _resume(folder, plan)
    shards = -(-items // per_shard)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "plan.json", plan)
    bar = tqdm.tqdm(desc="encoding", total=shards * per_shard, unit="mixture")
    for shard in range(shards):
        if shard in done:
            bar.update(per_shard)
            continue
        numbers = range(shard * per_shard, (shard + 1) * per_shard)
        records = _records(numbers, mixture, encode, batch, sample_rate, hop, teacher)
        _write_shard(folder / f"{shard:05d}.arrayrecord", records, bar)
    bar.close()
    _write_json(folder / "cache.json", plan | {"shards": max([shards - 1, *done]) + 1})


def _probe(encode: Encode, rows: int, samples: int) -> Float[np.ndarray, "batch frames channels"]:
    """What the codec makes of one fixed noise: tells whether it is the same codec."""
    noise = 0.1 * np.random.default_rng(0).normal(size=(rows, samples))
    return np.asarray(encode(noise.astype(np.float32)))


def _resume(folder: pathlib.Path, plan: dict[str, Any]) -> set[int]:
    """Numbers of the shards that are already whole."""
    if not (folder / "plan.json").is_file():
        return set()
    before = _read(folder / "plan.json")
    now = json.loads(json.dumps(plan))
    for name in CHECKED:
        if before[name] != now[name]:
            raise UserError(
                f"{folder} holds a cache with another {name}: {before[name]!r}, not "
                f"{now[name]!r}; choose another folder"
            )
    if not np.allclose(before["probe"], now["probe"], rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE):
        raise UserError(f"{folder} was made with other weights of codec {plan['codec']}")
    return {int(path.stem) for path in folder.glob("*.arrayrecord")}


def _records(
    numbers: range,
    mixture: Callable[[int], Mixture],
    encode: Encode,
    batch: int,
    sample_rate: int,
    hop: int,
    teacher: Teacher | None,
) -> Iterator[Record]:
    groups = [numbers[first : first + batch] for first in range(0, len(numbers), batch)]
    for made in _ahead(lambda group: [mixture(number) for number in group], groups):
        waves = np.stack([getattr(one, name) for name in SIGNALS for one in made])
        waves = np.pad(waves, ((0, 3 * batch - len(waves)), (0, 0)))  # one compiled shape
        latents = np.asarray(encode(waves)).astype(np.float16)
        features = None
        if teacher is not None:
            sources = np.roll(waves, -len(made), axis=0)[: 2 * batch]  # targets, then residuals
            features = np.asarray(teacher.features(sources)).astype(np.float16)
        for row, one in enumerate(made):
            yield Record(
                *(latents[place * len(made) + row] for place in range(len(SIGNALS))),
                target_texts=one.target_texts,
                residual_texts=one.residual_texts,
                target_active=energy.activity(one.target, sample_rate, hop),
                residual_active=energy.activity(one.residual, sample_rate, hop),
                category=one.category,
                target_features=None if features is None else features[row],
                residual_features=(
                    features[len(made) + row]
                    if features is not None and one.residual_texts
                    else None
                ),
            )


def _ahead(make: Callable[[A], B], arguments: Sequence[A]) -> Iterator[B]:
    """`map` that makes the next value in a thread while the last one is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, arguments[0])
        for argument in arguments[1:]:
            value, coming = coming.result(), pool.submit(make, argument)
            yield value
        yield coming.result()


def _write_shard(path: pathlib.Path, records: Iterator[Record], bar: tqdm.tqdm) -> None:
    part = path.with_suffix(".part")
    writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1,uncompressed")
    try:
        for record in records:
            writer.write(pack(record))
            bar.update()
    finally:
        writer.close()
    part.rename(path)


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1))
    part.rename(path)


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of `cache.json`. Raises `UserError` if the folder holds no finished cache."""
    path = pathlib.Path(folder) / "cache.json"
    if not path.is_file():
        raise UserError(f"no latent cache in {folder}; make one with launch/prepare.py")
    return _read(path)


def _read(path: pathlib.Path) -> dict[str, Any]:
    """`plan.json` or `cache.json` of any format, as format 2 has it."""
    index = {"teacher": "", "segment_s": 0.0} | read_json(path)
    check_format(path, index, FORMAT)
    return index | {"recipe": migrated_recipe(index["recipe"])}


class Cache:
    """Random access to the records of a cache; damaged ones are None. Picklable."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = str(folder)
        self.index = read_index(folder)
        self._paths = sorted(str(path) for path in pathlib.Path(folder).glob("*.arrayrecord"))
        if len(self._paths) < self.index["shards"]:
            raise UserError(
                f"{folder} has {len(self._paths)} of {self.index['shards']} shards; run prepare.py"
            )
        try:
            self._source = array_record_data_source.ArrayRecordDataSource(self._paths)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder} has a damaged shard, delete it: {reason}") from None

    def __reduce__(self):
        return Cache, (self.folder,)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Record | None:
        try:
            return unpack(self._source[number])
        except (RuntimeError, ValueError, KeyError, msgpack.UnpackException) as error:
            log.warning("skipped record %d of %s: %s", number, self.folder, error)
            return None
