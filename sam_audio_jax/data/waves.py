"""The decoded waves of recordings.

Every file is decoded once, mixed down to mono, resampled and stored as int16 in one memory-mapped
file that all processes share. Files that cannot be used are counted by reason, named in the log and
left out.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from sam_audio_jax import audio
from sam_audio_jax.data import energy
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.errors import UnusableError, UserError
from sam_audio_jax.files import check_writable, read_json, whole_folder, write_json
from sam_audio_jax.progress_bar import progress_bar

log = logging.getLogger(__name__)

SILENT_PEAK = 10 ** (-60 / 20)  # recordings below -60 dBFS are refused
DECODE_VERSION = 3  # part of the cache's name: raise it when decoding changes


@runtime_checkable
class WaveReader(Protocol):
    """Mono waves of recordings at one rate, by number; picklable."""

    def length(self, number: int) -> int: ...

    def read(
        self, number: int, start: int = 0, length: int | None = None
    ) -> Float32[np.ndarray, " samples"]: ...


class Waves:
    """Decoded recordings at one rate: int16 in one memory-mapped file."""

    def __init__(self, folder: str | os.PathLike):
        index = read_json(pathlib.Path(folder) / "index.json")
        self.folder = str(folder)
        self.starts: list[int] = index["starts"]
        self.lengths: list[int] = index["lengths"]  # 0: the recording was refused
        self.scales: list[float] = index["scales"]
        # path -> reason and text; of earlier versions the text alone
        self.refused: dict[str, list[str] | str] = index["refused"]
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


def open_waves(
    recordings: Sequence[Recording],
    sample_rate: int,
    most_bad: float = 1.0,
    refusals: Refusals | None = None,
) -> Waves:
    """Decodes the recordings to mono at `sample_rate`, unless that was done before.

    Files that are silent, truncated or cannot be decoded are logged and get length 0. Raises
    `UserError` when that is all of them, or more than a share `most_bad` of them together with
    `refusals`, the lines of manifests that were refused.
    """
    stamp = hashlib.sha256(f"{DECODE_VERSION} {sample_rate}".encode())
    for recording in recordings:
        status = os.stat(recording.path)
        stamp.update(
            f"{os.path.abspath(recording.path)}|{status.st_size}|{status.st_mtime_ns}".encode()
        )
        stamp.update(f"|{recording.duration}".encode())  # a shorter file is refused
        if recording.track or recording.channel:
            stamp.update(f"|{recording.track}|{recording.channel}".encode())
    folder = cache_root() / f"waves-{sample_rate}-{stamp.hexdigest()[:16]}"
    if not (folder / "index.json").is_file():
        _decode_all(recordings, sample_rate, folder)
    waves = Waves(folder)
    refusals = Refusals() if refusals is None else refusals
    total = len(recordings) + len(refusals)
    for path, found in waves.refused.items():
        reason, text = ("cannot be decoded", found) if isinstance(found, str) else found
        refusals.add(Refusal(reason, f"{path}: {text}"))
    refusals.check(total, most_bad)
    return waves


def decode(recording: Recording, sample_rate: int) -> Float32[np.ndarray, " samples"]:
    """The whole mono wave of a recording. Raises `UnusableError` where there is none to use."""
    if recording.record is not None:
        text = "is a record of shards, which only a streamed source reads (data.source.streamed)"
        raise UnusableError(text, "in shards")
    try:
        sound = audio.load(recording.path, recording.track)
    except UnusableError:
        raise
    except UserError as error:
        raise UnusableError(str(error)) from None
    for note in sound.notes:
        log.warning("%s", note)
    seconds = sound.samples.shape[-1] / sound.sample_rate
    if seconds < recording.duration - max(0.1, 0.02 * recording.duration):
        text = f"truncated: {seconds:.2f} s of {recording.duration:.2f} s"
        raise UnusableError(text, "truncated")
    samples = chosen_channel(sound.samples, recording)
    weights = audio.mixing_weights(samples, sound.sample_rate)
    mixed = audio.without_offsets(audio.mono(samples, weights)[None])[0]
    wave = audio.resample(mixed, sound.sample_rate, sample_rate)
    check_sounding(wave, sample_rate)
    return wave


def check_sounding(wave: Float32[np.ndarray, " samples"], sample_rate: int) -> None:
    """Raises `UnusableError` for a wave of which no part has a level that a mixture could set."""
    if not np.abs(wave).max() > SILENT_PEAK:
        raise UnusableError("silent", "silent")
    if not energy.active_rms(wave, sample_rate):
        level = f"{20 * np.log10(energy.SILENT):g} dBFS"
        raise UnusableError(f"too quiet: nowhere {level} or more for 10 ms", "too quiet")


def chosen_channel(
    samples: Float32[np.ndarray, "channels samples"], recording: Recording
) -> Float32[np.ndarray, "_ samples"]:
    """The one channel that a recording names, or all of them.

    Raises `UnusableError` for a channel that is not there.
    """
    channel = recording.channel
    if channel is None:
        return samples
    if channel > len(samples):
        raise UnusableError(f"has no channel {channel}, it has {len(samples)}", "no channel")
    return samples[channel - 1 : channel]


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

    def decoded_or_refused(recording: Recording) -> Float32[np.ndarray, " samples"] | Refusal:
        try:
            return decode(recording, sample_rate)
        except UnusableError as error:
            return Refusal(error.reason, str(error))

    with (
        concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        file.open("wb") as out,
    ):
        decoded: Iterable = pool.map(decoded_or_refused, recordings)
        bar = progress_bar(
            decoded, desc="decoding", total=len(recordings), leave=False, unit="file"
        )
        for recording, wave in zip(recordings, bar, strict=True):
            if isinstance(wave, Refusal):
                parts = recording.record, recording.track, recording.channel
                part = "" if parts == (None, None, None) else f" ({recording.id})"
                index["refused"][f"{recording.path}{part}"] = [wave.reason, wave.text]
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
