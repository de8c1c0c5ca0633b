"""Waves of recordings that are decoded where they are read, and kept for a while.

Nothing is decoded before it is used and nothing is written: what a corpus of any size takes is the
memory of a few excerpts. An excerpt is the same whenever and by whichever process it is read.
"""

import collections
import pathlib

import numpy as np
from jaxtyping import Float32

from sam_audio_jax import audio
from sam_audio_jax.audio.excerpt import sound_name
from sam_audio_jax.data.arrange import Samples
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.containers import open_container
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.recording_table import RecordingTable
from sam_audio_jax.data.refusals import Refusal, Refusals
from sam_audio_jax.data.waves import check_sounding, chosen_channel
from sam_audio_jax.errors import UnusableError, UserError
from sam_audio_jax.files import append_jsonl, read_jsonl

LEAST_SHARE = 0.25  # of the channels' power that their mean must keep; unrelated ones: a half
SHORT_S = 0.1  # by which a recording may be shorter than it is said to be, or by `SHORT_SHARE`
SHORT_SHARE = 0.02
REFUSED = "refused.jsonl"  # beside the table: what could not be read, of all processes


class StreamedWaves:
    """Mono waves at one rate, as `waves.Waves` has them, decoded when they are read. Picklable."""

    def __init__(self, table: RecordingTable, sample_rate: int, config: SourceConfig):
        self.table, self.sample_rate, self.config = table, sample_rate, config
        self._seconds = table.seconds
        self._kept: collections.OrderedDict[tuple[int, int, int], Samples] = (
            collections.OrderedDict()
        )
        self._bytes = 0
        self.refusals = Refusals()
        self._refused = {line["number"] for line in self.found_before()}

    def __reduce__(self):
        return StreamedWaves, (self.table, self.sample_rate, self.config)

    def found_before(self) -> list[dict]:
        """What this and other processes could not read, a line each; of earlier runs, too."""
        path = pathlib.Path(self.table.folder) / REFUSED
        return read_jsonl(path, skip_torn=True) if self.table.folder else []

    def length(self, number: int) -> int:
        """Samples of a recording, as its source says."""
        return max(1, round(float(self._seconds[number]) * self.sample_rate))

    def read(self, number: int, start: int = 0, length: int | None = None) -> Samples:
        """Samples `start : start + length` of a recording, cut at its end.

        Raises `UnusableError` for what cannot be decoded or is silent, which is counted once, and
        `UserError` when that is more than `data.source.most_bad` of all recordings.
        """
        whole = self.length(number)
        count = whole - start if length is None else min(length, whole - start)
        key = number, start, count
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            wave = self._decoded(self.table.recordings[number], start, count)
        except UnusableError as error:
            self._refuse(number, error)
            raise
        self._keep(key, wave)
        return wave

    def _decoded(self, recording: Recording, start: int, count: int) -> Samples:
        sound = sound_of(recording, self.config)
        samples = audio.load_excerpt(sound, start, count, self.sample_rate, recording.track)
        found = samples.shape[1]
        allowed = max(SHORT_S, SHORT_SHARE * recording.duration) * self.sample_rate
        if found < count - allowed:
            end_s = (start + found) / self.sample_rate
            raise UnusableError(
                f"{sound_name(sound)} truncated: {end_s:.2f} s of {recording.duration:.2f} s",
                "truncated",
            )
        try:
            mixed = mixed_down(chosen_channel(samples, recording), self.sample_rate)
        except UnusableError as error:
            raise UnusableError(f"{sound_name(sound)} {error}", error.reason) from None
        wave = audio.without_offsets(mixed[None])[0].astype(np.float32)
        try:
            check_sounding(wave, self.sample_rate)
        except UnusableError as error:
            text = f"{sound_name(sound)} from {start / self.sample_rate:.2f} s: {error}"
            raise UnusableError(text, error.reason) from None
        return wave

    def _keep(self, key: tuple[int, int, int], wave: Samples) -> None:
        wave.setflags(write=False)
        self._kept[key] = wave
        self._bytes += wave.nbytes
        while self._bytes > self.config.cache_mb * 2**20:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _refuse(self, number: int, error: UnusableError) -> None:
        """Counts a recording, once, here and beside the table, where all processes do."""
        if number in self._refused:
            return
        self._refused.add(number)
        self.refusals.add(Refusal(error.reason, str(error)))
        if self.table.folder:
            line = {"number": number, "reason": error.reason, "text": str(error)}
            append_jsonl(pathlib.Path(self.table.folder) / REFUSED, [line])
        total = len(self._seconds)
        if len(self._refused) > max(1, self.config.most_bad * total):
            raise UserError(
                f"{len(self._refused)} of {total} recordings are unusable, more than "
                f"data.source.most_bad={self.config.most_bad:g} allows; in this process: "
                f"{self.refusals}: {error}"
            ) from None


def sound_of(recording: Recording, config: SourceConfig) -> audio.Sound:
    """Where the sound of a recording is: a file, or bytes or samples out of a container."""
    if recording.record is None:
        return pathlib.Path(recording.path)
    fields = config.tfds_fields
    return open_container(recording.path, config.split, fields).sound(recording.record)


def mixed_down(samples: Float32[np.ndarray, "channels samples"], sample_rate: int) -> Samples:
    """The mean of the channels, or another sum where their mean loses sound."""
    mean = audio.mono(samples)
    if len(samples) > 1:
        power = np.mean(np.square(samples))
        if np.mean(np.square(mean)) < LEAST_SHARE * power:
            return audio.mono(samples, audio.mixing_weights(samples, sample_rate))
    return mean
