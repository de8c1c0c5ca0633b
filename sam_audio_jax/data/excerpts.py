"""Training excerpts of the codec, as in DAC (arXiv 2306.06546, section 4).

Kinds of sound alternate in equal shares; each file of a kind comes once per round, shuffled. An
item is a function of (seed, index) alone, so order never depends on workers or restarts.
"""

import dataclasses
import functools
from typing import Annotated

import numpy as np
from jaxtyping import Float32, Int

from sam_audio_jax import audio
from sam_audio_jax.bounds import Checked, Decibels, Range, Seconds, Seed, Share, Workers
from sam_audio_jax.config import FREE
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.data.recording import CATEGORIES
from sam_audio_jax.data.recording_table import CATEGORY, Numbers, RecordingTable
from sam_audio_jax.data.waves import WaveReader
from sam_audio_jax.errors import UnusableError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExcerptConfig(Checked, where="data"):
    """Random excerpts of single recordings; values marked DAC are published, the others ours."""

    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    seconds: Seconds = 1.0  # rounded to whole frames of the codec
    loudness_lufs: Decibels = -16.0  # DAC; every excerpt is scaled to it
    threshold_lufs: Decibels = -40.0  # DAC; quieter excerpts are drawn again
    draws: Annotated[int, Range(1, 10_000)] = 8  # DAC; the last draw is kept whatever its level
    gain_db: tuple[Decibels, Decibels] = (-16.0, 0.0)  # on top, because stems have any level
    mixed: Share = 0.25  # share of excerpts that are two recordings at once, as in mixtures
    phase_rotation: bool = True  # DAC
    workers: Workers = dataclasses.field(default=0, metadata=FREE)  # processes; 0: a thread
    seed: Seed = 0


class Excerpts:
    """Random access to an endless list of excerpts {"wave": float32 [samples]}."""

    def __init__(
        self,
        config: ExcerptConfig,
        table: RecordingTable,
        waves: WaveReader,
        sample_rate: int,
        samples: int,
    ):
        self.config, self.waves = config, waves
        self.sample_rate, self.samples = sample_rate, samples
        of_category = {name: table.numbers(f"{CATEGORY}{name}") for name in sorted(CATEGORIES)}
        self.kinds = [numbers for numbers in of_category.values() if len(numbers)]

    def __len__(self) -> int:
        return 2**48

    def __getitem__(self, index: int) -> dict[str, Float32[np.ndarray, " samples"]]:
        config = self.config
        rng = np.random.default_rng((config.seed, index))
        occurrence, kind = divmod(index, len(self.kinds))
        files = self.kinds[kind]
        round_number, position = divmod(occurrence, len(files))
        number = int(files[shuffled(config.seed, kind, round_number, len(files))[position]])
        wave = self._loud_excerpt(number, files, rng)
        if rng.random() < config.mixed:
            other = self.kinds[rng.integers(len(self.kinds))]
            second = self._loud_excerpt(int(other[rng.integers(len(other))]), other, rng)
            wave = wave + second * np.float32(10 ** (rng.uniform(-15, 15) / 20))
        if config.phase_rotation:
            wave = audio.rotate_phase(wave, rng.uniform(-np.pi, np.pi), self.sample_rate)
        gain_db = config.loudness_lufs - audio.loudness_lufs(wave, self.sample_rate)
        wave = wave * np.float32(10 ** (gain_db / 20))
        wave /= max(1.0, float(np.abs(wave).max()))
        return {"wave": wave * np.float32(10 ** (rng.uniform(*config.gain_db) / 20))}

    def _loud_excerpt(
        self, number: int, files: Numbers, rng: np.random.Generator
    ) -> Float32[np.ndarray, " samples"]:
        """An excerpt with a peak of 1, drawn again until it is loud enough."""
        wave = np.zeros(self.samples, np.float32)
        for _ in range(self.config.draws):
            try:
                wave = self._excerpt(number, files, rng)
            except UnusableError:  # which is counted where it is read
                number = int(files[rng.integers(len(files))])
                continue
            if audio.loudness_lufs(wave, self.sample_rate) > self.config.threshold_lufs:
                break
        return wave / np.float32(max(np.abs(wave).max(), 1e-4))

    def _excerpt(
        self, number: int, files: Numbers, rng: np.random.Generator
    ) -> Float32[np.ndarray, " samples"]:
        """A part of a long file, or short files of one kind one after another with rests."""
        length = self.waves.length(number)
        if length >= self.samples:
            start = int(rng.integers(length - self.samples + 1))
            return self.waves.read(number, start, self.samples)
        wave = np.zeros(self.samples, np.float32)
        rest = self.sample_rate // 4
        position = int(rng.integers(min(self.samples - length, rest) + 1))
        while position < self.samples:
            clip = self.waves.read(number, 0, self.samples - position)
            wave[position : position + len(clip)] = clip
            position += len(clip) + int(rng.integers(rest))
            number = int(files[rng.integers(len(files))])
        return wave


@functools.lru_cache(maxsize=16)
def shuffled(seed: int, kind: int, round_number: int, size: int) -> Int[np.ndarray, " files"]:
    """The order in which the files of a kind come in a round."""
    return np.random.default_rng((seed, kind, round_number, size)).permutation(size)
