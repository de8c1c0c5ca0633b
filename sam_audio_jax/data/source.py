"""Where sound comes from: source manifests, songs, and the decoded waves behind them.

A manifest is JSONL, one recording a line (spec/data_engine.md, "Shape of the engine"). Waves are
decoded once, resampled, and kept as int16 in one memory-mapped file that all processes share.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Float32

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError

log = logging.getLogger(__name__)

CATEGORIES = ("speech", "music", "sfx", "instrument")
BAD_SHARE = 0.01  # of the recordings; one bad file is always forgiven
SILENT_PEAK = 10 ** (-60 / 20)
DECODE_VERSION = 1  # part of the cache's name: raise it when decoding changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One line of a source manifest; `path` is resolved, `spans` are seconds."""

    id: str
    path: str
    caption: str
    category: str
    source_id: str
    duration: float
    license: str
    alt_captions: tuple[str, ...] = ()
    split: str = "train"
    speaker: str | None = None
    song: str | None = None
    stem: str | None = None
    image: str | None = None
    video: str | None = None
    spans: tuple[tuple[float, float], ...] = ()
    stems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Song:
    """Stems of one excerpt of one piece, by recording id; they sum to its mixture."""

    name: str
    split: str
    stems: tuple[str, ...]


def embedded() -> str:
    """The manifest that ships inside the package (sam_audio_jax/data/embedded)."""
    return str(pathlib.Path(__file__).parent / "embedded" / "manifest.jsonl")


def read_lines(path: str | os.PathLike) -> list[tuple[int, dict[str, Any]]]:
    """The (line number, object) pairs of a JSONL file; UserError names file and line."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"no manifest at {path}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} line {number} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UserError(f"{path} line {number} must be an object, not {type(value).__name__}")
        found.append((number, value))
    if not found:
        raise UserError(f"{path} has no lines")
    return found


def load_manifest(path: str | os.PathLike) -> list[Recording]:
    """Reads and checks a manifest.

    UserError names file and line: not JSON, a field missing or of the wrong type, an unknown
    category, a sound file that is not there, an id used twice; also an empty manifest.
    """
    path = pathlib.Path(path)
    recordings, seen = [], {}
    for number, line in read_lines(path):
        recording = _recording(line, path, number)
        if recording.id in seen:
            raise UserError(
                f"{path} line {number}: id {recording.id!r} is also in line {seen[recording.id]}"
            )
        seen[recording.id] = number
        recordings.append(recording)
    return recordings


def _recording(line: dict[str, Any], path: pathlib.Path, number: int) -> Recording:
    where = f"{path} line {number}"

    def field(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = line.get(name, default)
        if value is None and default is None and name in OPTIONAL:
            return None
        if value is None:
            raise UserError(f"{where}: field {name!r} is missing")
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise UserError(f"{where}: field {name!r} must be a {wanted}, not {value!r}")
        return value

    sound = path.parent / field("path", str)
    if not sound.is_file():
        raise UserError(f"{where}: no sound file at {sound}")
    category = field("category", str)
    if category not in CATEGORIES:
        raise UserError(f"{where}: category {category!r} must be one of {', '.join(CATEGORIES)}")
    duration = float(field("duration", (int, float)))
    if not duration > 0 or not math.isfinite(duration):
        raise UserError(f"{where}: duration {duration} must be above 0 s")
    alternatives = field("alt_captions", list, [])
    spans = field("spans", list, [])
    try:
        spans = tuple((float(start), float(end)) for start, end in spans)
    except (TypeError, ValueError):
        raise UserError(
            f"{where}: spans must be [[start, end], ...] in seconds, not {spans!r}"
        ) from None
    if not all(isinstance(text, str) for text in alternatives):
        raise UserError(f"{where}: alt_captions must be strings, not {alternatives!r}")
    if not field("caption", str).strip():
        raise UserError(f"{where}: caption is empty")
    stems = line.get("stems") or []
    return Recording(
        id=field("id", str, str(sound)),
        path=str(sound),
        caption=line["caption"],
        category=category,
        source_id=field("source_id", str),
        duration=duration,
        license=field("license", str, line.get("licence", "unknown")),
        alt_captions=tuple(alternatives),
        split=field("split", str, "train"),
        spans=spans,
        stems=tuple(str(stem) for stem in stems),
        **{name: field(name, str) for name in OPTIONAL},
    )


OPTIONAL = ("speaker", "song", "stem", "image", "video")


def load_manifests(paths: Sequence[str], split: str) -> list[Recording]:
    """The recordings of one split of several manifests (none named: the embedded one)."""
    every = [recording for path in paths or (embedded(),) for recording in load_manifest(path)]
    chosen = [recording for recording in every if recording.split == split]
    if not chosen:
        splits = sorted({recording.split for recording in every})
        raise UserError(
            f"no recordings with split {split!r}; the manifests have {', '.join(splits)}"
        )
    return chosen


def load_songs(paths: Sequence[str], split: str) -> list[Song]:
    """The songs beside the manifests (`songs.jsonl`), if any, in one split."""
    songs = []
    for manifest in paths or (embedded(),):
        path = pathlib.Path(manifest).parent / "songs.jsonl"
        if not path.is_file():
            continue
        for number, line in read_lines(path):
            try:
                stems = tuple(stem["id"] for stem in line["stems"])
                songs.append(Song(str(line["song"]), line.get("split", "train"), stems))
            except (KeyError, TypeError):
                raise UserError(f"{path} line {number} needs song and stems with ids") from None
    return [song for song in songs if song.split == split]


class Waves:
    """Decoded recordings at one rate: int16 in one memory-mapped file."""

    def __init__(self, folder: str | os.PathLike):
        index = json.loads((pathlib.Path(folder) / "index.json").read_text())
        self.folder = str(folder)
        self.starts: list[int] = index["starts"]
        self.lengths: list[int] = index["lengths"]  # 0: the recording was refused
        self.scales: list[float] = index["scales"]
        self.refused: dict[str, str] = index["refused"]  # path -> reason
        self._samples = np.memmap(pathlib.Path(folder) / "samples.i16", np.int16, "r")

    def __reduce__(self):
        return Waves, (self.folder,)

    def length(self, number: int) -> int:
        return self.lengths[number]

    def read(
        self, number: int, start: int = 0, length: int | None = None
    ) -> Float32[np.ndarray, " samples"]:
        """Samples `start : start + length` of a recording, cut at its end."""
        end = self.lengths[number] if length is None else min(start + length, self.lengths[number])
        offset = self.starts[number]
        piece = self._samples[offset + start : offset + end]
        return piece.astype(np.float32) * np.float32(self.scales[number])


def cache_root() -> pathlib.Path:
    """Where decoded waves are kept: SAM_AUDIO_CACHE, else the user's cache folder."""
    named = os.environ.get("SAM_AUDIO_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(named) if named else pathlib.Path(base) / "sam_audio_jax"


def open_waves(recordings: Sequence[Recording], sample_rate: int) -> Waves:
    """Decodes the recordings to mono at `sample_rate`, or finds them decoded.

    Files that are silent, truncated or cannot be decoded are logged and get length 0;
    UserError when they are more than one and above 1 %.
    """
    stamp = hashlib.sha256(f"{DECODE_VERSION} {sample_rate}".encode())
    for recording in recordings:
        found = os.stat(recording.path)
        stamp.update(
            f"{os.path.abspath(recording.path)}|{found.st_size}|{found.st_mtime_ns}".encode()
        )
    folder = cache_root() / f"waves-{sample_rate}-{stamp.hexdigest()[:16]}"
    if not (folder / "index.json").is_file():
        _decode_all(recordings, sample_rate, folder)
    waves = Waves(folder)
    _judge(waves.refused, len(recordings))
    return waves


def _judge(refused: dict[str, str], total: int) -> None:
    for path, reason in refused.items():
        log.warning("skipped %s: %s", path, reason)
    if len(refused) > max(1, BAD_SHARE * total):
        path, reason = next(iter(refused.items()))
        raise UserError(
            f"{len(refused)} of {total} recordings are unusable (at most 1 % may): {path}: {reason}"
        )


def _decode(recording: Recording, sample_rate: int) -> Float32[np.ndarray, " samples"] | str:
    """The mono wave, or why it is refused."""
    try:
        heard = audio.load(recording.path)
    except UserError as error:
        return str(error)
    found = heard.samples.shape[-1] / heard.sample_rate
    if found < recording.duration - max(0.1, 0.02 * recording.duration):
        return f"truncated: {found:.2f} s of {recording.duration:.2f} s"
    wave = audio.resample(heard.samples.mean(axis=0), heard.sample_rate, sample_rate)
    return wave if np.abs(wave).max() > SILENT_PEAK else "silent"


def _decode_all(recordings: Sequence[Recording], sample_rate: int, folder: pathlib.Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix="part-"))
    index: dict[str, Any] = {"starts": [], "lengths": [], "scales": [], "refused": {}}
    offset = 0
    try:
        with (
            concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
            open(part / "samples.i16", "wb") as out,
        ):
            decoded: Iterable = pool.map(lambda one: _decode(one, sample_rate), recordings)
            bar = tqdm.tqdm(decoded, "decoding", len(recordings), leave=False, unit="file")
            for recording, wave in zip(recordings, bar, strict=True):
                if isinstance(wave, str):
                    index["refused"][recording.path] = wave
                    wave = np.zeros(0, np.float32)
                scale = float(np.abs(wave).max(initial=0.0)) / 32767
                out.write(np.round(wave / max(scale, 1e-12)).astype(np.int16).tobytes())
                index["starts"].append(offset)
                index["lengths"].append(len(wave))
                index["scales"].append(scale)
                offset += len(wave)
            if not offset:
                out.write(bytes(2))  # an empty file cannot be mapped
        (part / "index.json").write_text(json.dumps(index))
        if not folder.is_dir():  # another process may have been faster
            part.rename(folder)
    except OSError:
        if not (folder / "index.json").is_file():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
