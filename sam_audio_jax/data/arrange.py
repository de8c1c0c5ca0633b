"""Recordings laid out in time: as events between silences, or repeated until the end."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float32

from sam_audio_jax import audio
from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.data.waves import WaveReader

REST_S = 0.35  # longest pause of a repeated clip
EVENT_REST_S = 0.25  # shortest pause between events
FADE_S = 0.01  # at cuts inside a clip
MOST_EVENTS = 3
SIBLING_SHARE = 0.3  # repetitions that may change to another clip of the same source and caption

Samples = Float32[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class Placement:
    """A stretch of a recording and where it lies in a mixture; counts are in samples."""

    number: int  # of the recording
    start: int  # of the stretch in the recording
    speed: float  # samples of the recording for each of the mixture
    offset: int  # in the mixture
    samples: int  # of the mixture


@dataclasses.dataclass(frozen=True)
class LaidOut:
    """A wave of a mixture's length, and the stretches of recordings that it consists of."""

    wave: Samples
    places: tuple[Placement, ...]


@dataclasses.dataclass(frozen=True)
class Arranger:
    """Makes waves of `samples` samples from recordings, which are named by their number.

    All randomness comes from the generator that a method gets. The order in which a method draws
    from it is a contract (see `sam_audio_jax/data/__init__.py`).
    """

    config: MixConfig
    waves: WaveReader
    sample_rate: int
    samples: int

    def speed(self, category: str, rng: np.random.Generator) -> float:
        """A random factor on speed and pitch of a recording of one category."""
        changed = rng.random() < self.config.speed_share
        largest = dict(self.config.speed_of).get(category, self.config.speed)
        return float(1 + rng.uniform(-1, 1) * largest) if changed else 1.0

    def clip(self, number: int, speed: float, start: int = 0) -> tuple[Samples, int]:
        """A recording from sample `start` on, `speed` times as fast, and how much of it is sound.

        The wave is cut or padded to `samples`.
        """
        needed = int(np.ceil(self.samples * speed)) + 8
        wave = self.waves.read(number, start, needed)
        if speed != 1.0:
            wave = soxr.resample(wave, self.sample_rate * speed, self.sample_rate)
        padded = np.zeros(self.samples, np.float32)
        length = min(len(wave), self.samples)
        padded[:length] = wave[:length]
        return padded, length

    def events(self, number: int, speed: float, rng: np.random.Generator) -> LaidOut:
        """One to three times the same clip with silence around and between them."""
        begin = 0
        if self.config.random_start:
            surplus = self.waves.length(number) - int(np.ceil(self.samples * speed)) - 8
            begin = int(rng.integers(surplus + 1)) if surplus > 0 else 0
        clip, length = self.clip(number, speed, begin)
        skip = 0
        longest = int(self.samples * rng.uniform(0.4, 0.9))
        if length > longest:  # a random part of a long clip, so that it too begins and ends
            skip = int(rng.integers(max(1, length - longest)))
            clip, length = self._faded(clip[skip : skip + longest]), longest
        rest = int(EVENT_REST_S * self.sample_rate)
        most = max(1, min(MOST_EVENTS, (self.samples + rest) // (length + rest)))
        count = int(rng.integers(1, most + 1))
        free = self.samples - count * length - (count - 1) * rest
        starts = np.sort(rng.integers(free + 1, size=count)) + np.arange(count) * (length + rest)
        wave = np.zeros(self.samples, np.float32)
        for start in starts:
            wave[start : start + length] += clip[:length]
        first = begin + round(skip * speed)
        places = (Placement(number, first, speed, int(start), length) for start in starts)
        return LaidOut(wave, tuple(places))

    def repeated(
        self, number: int, siblings: Sequence[int], speed: float, rng: np.random.Generator
    ) -> LaidOut:
        """The clip, or another of its `siblings`, again and again until the end."""
        wave = np.zeros(self.samples, np.float32)
        surplus = self.waves.length(number) - int(self.samples * speed)
        start = int(rng.integers(surplus)) if surplus > 0 else 0
        clip, length = self.clip(number, speed, start)
        position, places = 0, []
        while position < self.samples:
            end = min(position + length, self.samples)
            wave[position:end] = clip[: end - position]
            places.append(Placement(number, start, speed, position, end - position))
            position = end + int(rng.integers(int(REST_S * self.sample_rate)))
            if len(siblings) > 1 and rng.random() < SIBLING_SHARE:
                number, start = siblings[int(rng.integers(len(siblings)))], 0
                clip, length = self.clip(number, speed)
        return LaidOut(wave, tuple(places))

    def stems(self, numbers: Sequence[int], rng: np.random.Generator) -> list[LaidOut]:
        """The same random stretch of every stem of a song, all at one speed."""
        speed = self.speed("music", rng)
        length = min(self.waves.length(number) for number in numbers)
        needed = int(np.ceil(self.samples * speed)) + 8
        start = int(rng.integers(max(1, length - needed)))
        laid_out = []
        for number in numbers:
            wave, length = self.clip(number, speed, start)
            laid_out.append(LaidOut(wave, (Placement(number, start, speed, 0, length),)))
        return laid_out

    def tilted(self, wave: Samples, rng: np.random.Generator) -> Samples:
        """The highs up or down by up to `tilt_db`, a gentle slope around 1 kHz; random polarity."""
        tilt = rng.uniform(-1, 1) * self.config.tilt_db / 20 * np.log(10)
        sign = np.float32(rng.choice((-1.0, 1.0)))
        if not tilt:
            return sign * wave
        gains = np.exp(np.float32(tilt) * _share_of_tilt(len(wave), self.sample_rate))
        gains *= sign
        return audio.zero_phase(wave, gains)

    def _faded(self, wave: Samples) -> Samples:
        """The wave with short ramps at both ends."""
        ramp = np.linspace(0, 1, int(FADE_S * self.sample_rate), dtype=np.float32)
        wave = wave.copy()
        wave[: len(ramp)] *= ramp
        wave[-len(ramp) :] *= ramp[::-1]
        return wave


@functools.lru_cache(maxsize=2)  # 2 bytes a sample
def _share_of_tilt(samples: int, sample_rate: int) -> Float32[np.ndarray, "..."]:
    """How much of the logarithm of a tilt's gain each of `audio.frequencies` gets."""
    relative = audio.frequencies(samples, sample_rate) / np.float32(1000)
    return relative / (1 + relative)
