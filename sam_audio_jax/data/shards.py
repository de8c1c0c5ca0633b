"""The latent cache: mixtures rendered and encoded once, in ArrayRecord shards.

`FOLDER/cache.json` describes a finished cache, `plan.json` the same of one that is being made;
`FOLDER/00003.arrayrecord` holds `per_shard` records (`records.py`) with float16 latents and, if
there was a teacher, its features of target and residual. A shard appears when it is complete, so a
killed run loses one shard. `FOLDER/silence.msgpack` is a record of silence, the target of a prompt
for a sound that is absent.

Since format 5 (`format` in both files; absent: 1) records may have the waves of target and
residual. Format 4 has the claims of both sounds in its records, and the silence. Since format 3
they may have video features. Since format 2 the recipe has parts, as `DataConfig` has, and records
have `target_features`, which format 1 calls `target_heard`. All are read, and older caches can be
extended; their old shards stay as they are.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import msgpack
import numpy as np
import tqdm
from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Float, Float16

from sam_audio_jax.codec.probe import is_same_network, probe_noise, probe_of
from sam_audio_jax.config import to_dict
from sam_audio_jax.data.arrange import Placement
from sam_audio_jax.data.config import MixConfig, SourceConfig
from sam_audio_jax.data.mixture import Mixture
from sam_audio_jax.data.records import (
    SIGNALS,
    Record,
    check_digest,
    pack,
    unpack,
    with_digest,
)
from sam_audio_jax.data.video_tracks import VideoTracks
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import (
    check_format,
    json_differences,
    read_json,
    whole_file,
    write_json,
    writing_to,
)
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.saved_config import migrated_recipe

A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger(__name__)

FORMAT = 5
PACKAGE = "sam-audio-jax"  # whose version is in the index
SHARDS = "[0-9]*.arrayrecord"
CACHE_INDEX = "cache.json"  # written last
SILENCE = "silence.msgpack"
CHECKED = (
    *("sample_rate", "hop", "samples", "channels", "codec", "recipe", "per_shard", "teacher"),
    *("video_width", "vision", "waves"),
)

Encode = Callable[[Float[np.ndarray, "batch samples"]], Float[np.ndarray, "batch frames channels"]]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The teacher of the alignment loss; `name` and `segment_s` are written to the index."""

    name: str
    segment_s: float  # seconds from one segment to the next
    features: Callable[
        [Float[np.ndarray, "batch samples"]], Float[np.ndarray, "batch segments width"]
    ]


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
    name: str = "",
    per_shard: int = 64,
    batch: int = 8,
    teacher: Teacher | None = None,
    video: VideoTracks | None = None,
    waves: bool = False,
    rank: ProcessRank | None = None,
) -> bool:
    """Renders and encodes mixtures `0 .. items - 1`; shards that exist are not made again.

    Process p of N, by `rank`, makes every N-th shard; whichever ends last finishes the cache.
    Returns whether it is finished.

    `encode` gets 3 * `batch` waves at a time, `teacher` 2 * `batch`; `video` has the features of
    the recordings with a video; with `waves` the records keep those of both stems; `name` is that
    of the recipe, if it has one. `items` is rounded up to whole shards. Raises `UserError` if the
    folder holds a cache of another codec, teacher, recipe or size, and names what differs, and
    while another run writes to it.
    """
    folder = pathlib.Path(folder)
    probe = np.asarray(encode(probe_noise(3 * batch, samples)))
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
        "name": name,
        "version": version(PACKAGE),
        "per_shard": per_shard,
        "teacher": teacher.name if teacher else "",
        "segment_s": teacher.segment_s if teacher else 0.0,
        "video_width": video.width if video else 0,
        "vision": video.name if video else "",
        "vision_probe": list(video.probe) if video else [],
        "waves": waves,
        "probe": list(probe_of(probe)),
    }
    rank = rank or ProcessRank()
    with writing_to(folder, writer=rank.index, writers=rank.count):
        done = _shards_of(folder, plan)
        shards = -(-items // per_shard)
        write_json(folder / "plan.json", plan)
        render = _Renderer(mixture, encode, batch, sample_rate, hop, teacher, video, waves)
        if not (folder / SILENCE).is_file():
            with whole_file(folder / SILENCE) as part:
                part.write_bytes(with_digest(pack(render.silence(samples))))
        own = range(rank.index, shards, rank.count)
        with progress_bar(desc="encoding", total=len(own) * per_shard, unit="mixture") as bar:
            for shard in own:
                if shard in done:
                    bar.update(per_shard)
                    continue
                numbers = range(shard * per_shard, (shard + 1) * per_shard)
                records = zip(numbers, render.records(numbers), strict=True)
                _write_shard(folder / shard_name(shard), records, bar)
        done = {int(path.stem) for path in folder.glob(SHARDS)}
        finished = done >= set(range(shards))
        if finished:
            # Those of a larger cache count as far as none is missing before them.
            whole = next(number for number in itertools.count() if number not in done)
            write_json(folder / CACHE_INDEX, plan | {"shards": whole})
        return finished


def _shards_of(folder: pathlib.Path, plan: dict[str, Any]) -> set[int]:
    """Numbers of the shards that exist. Raises `UserError` if they are of another plan."""
    if not (folder / "plan.json").is_file():
        return set()
    saved = _read(folder / "plan.json")
    now = json.loads(json.dumps(plan))
    for name in CHECKED:
        for differing, old, new in json_differences(name, saved[name], now[name]):
            raise UserError(
                f"{folder} holds a cache with another {differing}: {old!r}, not {new!r}; choose "
                "another folder"
            )
    if not is_same_network(saved["probe"], now["probe"]):
        raise UserError(f"{folder} was made with other weights of codec {plan['codec']}")
    if not is_same_network(saved["vision_probe"], now["vision_probe"]):
        raise UserError(f"{folder} was made with other weights of the tower {plan['vision']}")
    return {int(path.stem) for path in folder.glob(SHARDS)}


@dataclasses.dataclass(frozen=True)
class _Renderer:
    """Makes records, `batch` mixtures at a time so that one program fits all of them."""

    mixture: Callable[[int], Mixture]
    encode: Encode
    batch: int
    sample_rate: int
    hop: int
    teacher: Teacher | None
    video: VideoTracks | None
    waves: bool

    def records(self, numbers: range) -> Iterator[Record]:
        """Yields the records of these mixtures."""
        starts = range(0, len(numbers), self.batch)
        groups = [numbers[start : start + self.batch] for start in starts]
        for mixtures in _ahead(lambda group: [self.mixture(number) for number in group], groups):
            yield from self._encoded(mixtures)

    def _encoded(self, mixtures: list[Mixture]) -> Iterator[Record]:
        count, batch = len(mixtures), self.batch
        waves = np.stack([getattr(one, name) for name in SIGNALS for one in mixtures])
        waves = np.pad(waves, ((0, 3 * batch - len(waves)), (0, 0)))
        latents = np.asarray(self.encode(waves)).astype(np.float16)
        features = [None] * (2 * batch)
        if self.teacher is not None:
            sources = np.roll(waves, -count, axis=0)[: 2 * batch]  # targets, then residuals
            features = np.asarray(self.teacher.features(sources)).astype(np.float16)
        stems = waves.astype(np.float16) if self.waves else None
        for row, one in enumerate(mixtures):
            active = one.activities(self.sample_rate, self.hop)
            yield Record(
                *(latents[signal * count + row] for signal in range(len(SIGNALS))),
                target_texts=one.target_texts,
                residual_texts=one.residual_texts,
                target_active=active[0],
                residual_active=active[1],
                target_claims=tuple(sorted(one.target_claims)),
                residual_claims=tuple(sorted(one.residual_claims)),
                category=one.category,
                target_features=features[row],
                residual_features=features[count + row] if one.residual_texts else None,
                target_video=self._seen(one.target_places, latents.shape[1]),
                residual_video=self._seen(one.residual_places, latents.shape[1])
                if one.residual_texts
                else None,
                target_wave=None if stems is None else stems[count + row],
                residual_wave=None if stems is None else stems[2 * count + row],
            )

    def silence(self, samples: int) -> Record:
        """The record of a mixture of nothing."""
        zeros = np.zeros(samples, np.float32)
        nothing = Mixture(zeros, zeros, zeros, (), (), "silence/silence")
        return next(self._encoded([nothing]))

    def _seen(
        self, places: tuple[Placement, ...], frames: int
    ) -> Float16[np.ndarray, "frames video_width"] | None:
        """The video features of one of the two sounds; None if it has none."""
        features = None if self.video is None else self.video.frames(places, frames)
        return features if features is not None and features.any() else None


def _ahead(make: Callable[[A], B], arguments: Sequence[A]) -> Iterator[B]:
    """Yields `make` of each argument; a thread makes the next value while the last one is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, arguments[0])
        for argument in arguments[1:]:
            value, coming = coming.result(), pool.submit(make, argument)
            yield value
        yield coming.result()


def _write_shard(path: pathlib.Path, records: Iterable[tuple[int, Record]], bar: tqdm.tqdm) -> None:
    with whole_file(path) as part:
        writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1,uncompressed")
        try:
            for number, record in records:
                writer.write(pack(record, number))
                bar.update()
        finally:
            writer.close()


def shard_name(number: int) -> str:
    """The file of a shard, as `SHARDS` finds it."""
    return f"{number:05d}.arrayrecord"


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of `cache.json`. Raises `UserError` if the folder holds no finished cache."""
    path = pathlib.Path(folder) / CACHE_INDEX
    if not path.is_file():
        raise UserError(f"no latent cache in {folder}; make one with `sam-audio prepare`")
    return _read(path)


def _read(path: pathlib.Path) -> dict[str, Any]:
    """`plan.json` or `cache.json` of any format, as format 5 has it.

    Fields that its recipe does not have are newer than the cache, and have their defaults.
    """
    index = {
        "name": "",
        "version": "",
        "teacher": "",
        "segment_s": 0.0,
        "video_width": 0,
        "vision": "",
        "vision_probe": [],
        "waves": False,
    } | read_json(path)
    check_format(path, index, FORMAT)
    recipe = migrated_recipe(index["recipe"])
    for part, default in (("source", SourceConfig()), ("mix", MixConfig())):
        recipe[part] = to_dict(default, free=False) | recipe[part]
    return index | {"recipe": recipe}


class Cache:
    """Random access to the records of a cache; damaged ones are None. Picklable.

    A record that says that it is another one than is read is a `UserError`.
    """

    def __init__(self, folder: str | os.PathLike):
        """Raises `UserError` for an unfinished cache, a damaged shard and one of another size."""
        self.folder = str(folder)
        self.index = read_index(folder)
        # Not those of an extension that has not ended: they would change the order of all.
        names = [shard_name(number) for number in range(self.index["shards"])]
        paths = [str(pathlib.Path(folder) / name) for name in names]
        if missing := [path for path in paths if not os.path.isfile(path)]:
            raise UserError(
                f"{folder} has {len(paths) - len(missing)} of {len(paths)} shards; run "
                "`sam-audio prepare` again"
            )
        try:
            self._source = array_record_data_source.ArrayRecordDataSource(paths)
        except RuntimeError as error:
            reason = first_line(error)
            raise UserError(f"{folder} has a damaged shard, delete it: {reason}") from None
        if len(self._source) != (whole := len(paths) * self.index["per_shard"]):
            raise UserError(
                f"the {len(paths)} shards of {folder} have {len(self._source)} records, not {whole}"
                ": delete those of another cache, and run `sam-audio prepare` again"
            )

    def silence(self) -> Record:
        """The record of silence.

        Raises `UserError` for a cache of format 1 to 3, without one, and where it is damaged.
        """
        path = pathlib.Path(self.folder) / SILENCE
        if not path.is_file():
            raise UserError(
                f"{self.folder} has no silence, the target of absent prompts "
                "(data.prompts.absent_share): it is of an earlier version, make a new one with "
                "`sam-audio prepare`"
            )
        data = path.read_bytes()
        try:
            check_digest(data)
            return unpack(data)
        except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise UserError(
                f"{path} is damaged ({first_line(error)}): delete it, and run `sam-audio prepare` "
                "again, which writes it anew"
            ) from None

    def __reduce__(self):
        return Cache, (self.folder,)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Record | None:
        try:
            return unpack(self._source[number], number)
        except UserError as error:
            shard = shard_name(number // self.index["per_shard"])
            raise UserError(
                f"{self.folder} has another shard in the place of {shard} ({error}): delete it, "
                "and run `sam-audio prepare` again"
            ) from None
        except (RuntimeError, ValueError, KeyError, msgpack.UnpackException) as error:
            log.warning("skipped record %d of %s: %s", number, self.folder, error)
            return None
