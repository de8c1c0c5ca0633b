"""The decoded waves of recordings.

Every file is decoded once, mixed down to mono, resampled and stored as int16 in one memory-mapped
file that all processes share. Files that cannot be used are counted, named in the log and left out.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tqdm
from jaxtyping import Float32

from sam_audio_jax import audio
from sam_audio_jax.data.source import Recording
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import check_writable, read_json, whole_folder, write_json

log = logging.getLogger(__name__)

BAD_SHARE = 0.01  # of the recordings that may be unusable; one bad file is always tolerated
SILENT_PEAK = 10 ** (-60 / 20)  # recordings below -60 dBFS are refused
DECODE_VERSION = 2  # part of the cache's name: raise it when decoding changes


class Waves:
    """Decoded recordings at one rate: int16 in one memory-mapped file."""

    def __init__(self, folder: str | os.PathLike):
        index = read_json(pathlib.Path(folder) / "index.json")
        self.folder = str(folder)
        self.starts: list[int] = index["starts"]
        self.lengths: list[int] = index["lengths"]  # 0: the recording was refused
        self.scales: list[float] = index["scales"]
        self.refused: dict[str, str] = index["refused"]  # path -> reason
        self._samples = np.memmap(pathlib.Path(folder) / "samples.i16", np.int16, "r")

    def __reduce__(self):
        return Waves, (self.folder,)

    def length(self, number: int) -> int:
        """Samples of a recording; 0 if it was refused."""
        return self.lengths[number]

    def read(
        self, number: int, start: int = 0, length: int | None = None
    ) -> Float32[np.ndarray, " samples"]:
        """Samples `start : start + length` of a recording, cut at its end; within -1 to 1."""
        end = self.lengths[number] if length is None else min(start + length, self.lengths[number])
        offset = self.starts[number]
        piece = self._samples[offset + start : offset + end]
        return piece.astype(np.float32) * np.float32(self.scales[number])


def cache_root() -> pathlib.Path:
    """The folder of decoded waves: SAM_AUDIO_CACHE, else the user's cache folder."""
    named = os.environ.get("SAM_AUDIO_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(named) if named else pathlib.Path(base) / "sam_audio_jax"


def open_waves(recordings: Sequence[Recording], sample_rate: int) -> Waves:
    """Decodes the recordings to mono at `sample_rate`, unless that was done before.

    Files that are silent, truncated or cannot be decoded are logged and get length 0. Raises
    `UserError` when they are more than one and above 1 %.
    """
    stamp = hashlib.sha256(f"{DECODE_VERSION} {sample_rate}".encode())
    for recording in recordings:
        status = os.stat(recording.path)
        stamp.update(
            f"{os.path.abspath(recording.path)}|{status.st_size}|{status.st_mtime_ns}".encode()
        )
    folder = cache_root() / f"waves-{sample_rate}-{stamp.hexdigest()[:16]}"
    if not (folder / "index.json").is_file():
        _decode_all(recordings, sample_rate, folder)
    waves = Waves(folder)
    _check_refused(waves.refused, len(recordings))
    return waves


def _check_refused(refused: dict[str, str], total: int) -> None:
    for path, reason in refused.items():
        log.warning("skipped %s: %s", path, reason)
    if len(refused) > max(1, BAD_SHARE * total):
        path, reason = next(iter(refused.items()))
        raise UserError(
            f"{len(refused)} of {total} recordings are unusable (at most 1 % may): {path}: {reason}"
        )


def _decode(recording: Recording, sample_rate: int) -> Float32[np.ndarray, " samples"] | str:
    """The mono wave, or the reason why it is refused."""
    try:
        sound = audio.load(recording.path)
    except UserError as error:
        return str(error)
    for note in sound.notes:
        log.warning("%s", note)
    seconds = sound.samples.shape[-1] / sound.sample_rate
    if seconds < recording.duration - max(0.1, 0.02 * recording.duration):
        return f"truncated: {seconds:.2f} s of {recording.duration:.2f} s"
    weights = audio.mixing_weights(sound.samples, sound.sample_rate)
    mixed = audio.without_offsets(audio.mono(sound.samples, weights)[None])[0]
    wave = audio.resample(mixed, sound.sample_rate, sample_rate)
    return wave if np.abs(wave).max() > SILENT_PEAK else "silent"


def _decode_all(recordings: Sequence[Recording], sample_rate: int, folder: pathlib.Path) -> None:
    """Makes the folder that `Waves` reads; several processes may do it at the same time."""
    check_writable(folder.parent, "the cache folder (SAM_AUDIO_CACHE)")
    try:
        with whole_folder(folder) as part:
            index = _write_samples(recordings, sample_rate, part / "samples.i16")
            write_json(part / "index.json", index, indent=None)
    except (OSError, UserError):
        if not (folder / "index.json").is_file():  # else another process has made it
            raise


def _write_samples(
    recordings: Sequence[Recording], sample_rate: int, file: pathlib.Path
) -> dict[str, Any]:
    """Writes the int16 samples of all recordings into one file; returns the index of it."""
    index: dict[str, Any] = {"starts": [], "lengths": [], "scales": [], "refused": {}}
    offset = 0
    with (
        concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        file.open("wb") as out,
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
    return index
