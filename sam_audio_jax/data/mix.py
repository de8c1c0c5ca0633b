"""Making mixtures from recordings and songs (spec/data_engine.md, "Three kinds of source").

A mixture is `target + residual`, each laid out in time on its own: as a few events between
silences, or repeated until the end; long clips and songs just play.
"""

import collections
import copy
import dataclasses

import numpy as np
import soxr
from jaxtyping import Float32

from sam_audio_jax.data import energy, text
from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.data.source import Recording, Song
from sam_audio_jax.data.waves import Waves
from sam_audio_jax.errors import UserError

TRIES = 50  # draws of a pair before the material counts as too poor
REST_S = 0.35  # longest pause of a repeated clip
FADE_S = 0.01  # at cuts inside a clip

Wave = Float32[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`mixture == target + residual` to the bit; the texts of either hold for it alone."""

    mixture: Wave
    target: Wave
    residual: Wave
    target_texts: tuple[str, ...]
    residual_texts: tuple[str, ...]  # none: the residual has no name and is no target
    category: str  # "target/residual" of the recipe


@dataclasses.dataclass(frozen=True)
class _Source:
    wave: Wave
    texts: tuple[str, ...]  # finest first; none if it has no name
    claims: frozenset[str]  # all that is true of it
    sources: frozenset[str]


class Mixer:
    """Draws mixtures of `samples` samples; all chance comes from the generator it is given."""

    def __init__(
        self,
        config: MixConfig,
        recordings: list[Recording],
        songs: list[Song],
        waves: Waves,
        sample_rate: int,
        samples: int,
    ):
        self.config, self.recordings, self.waves = config, recordings, waves
        self.sample_rate, self.samples = sample_rate, samples
        usable = [number for number in range(len(recordings)) if waves.length(number)]
        numbers = {recordings[number].id: number for number in usable}
        stems = [[numbers[stem] for stem in song.stems if stem in numbers] for song in songs]
        self.songs = [song for song in stems if len(song) > 1]
        self.groups = {"any": [n for n in usable if not recordings[n].song]}
        for kind in ("speech", "sfx", "instrument"):
            self.groups[kind] = [n for n in usable if recordings[n].category == kind]
        self.captions: dict[str, list[list[int]]] = {}
        for kind, members in self.groups.items():
            by_caption = collections.defaultdict(list)
            for number in members:
                by_caption[recordings[number].caption].append(number)
            self.captions[kind] = list(by_caption.values())
        self.siblings = collections.defaultdict(list)
        for number in usable:
            self.siblings[self._sibling_key(number)].append(number)
        self._set_recipes()

    def with_length(self, samples: int) -> "Mixer":
        """The same mixer for mixtures of another length."""
        other = copy.copy(self)
        other.samples = samples
        return other

    def _set_recipes(self) -> None:
        """Keeps the recipes that the material allows."""
        there = {kind for kind, members in self.groups.items() if len(members) > 1}
        there |= {"song", "stem", "rest"} if self.songs else set()
        recipes = [r for r in self.config.recipes if {r[0], r[1]} <= there and r[2] > 0]
        if not recipes:
            raise UserError("none of data.mix.recipes can be made from these recordings")
        self.recipes = [recipe[:2] for recipe in recipes]
        weights = np.array([recipe[2] for recipe in recipes])
        self.bounds = np.cumsum(weights / weights.sum())

    def _sibling_key(self, number: int) -> tuple[str, str]:
        return self.recordings[number].source_id, self.recordings[number].caption

    def draw(self, rng: np.random.Generator) -> Mixture:
        """One mixture; UserError if the recordings hold no two that captions tell apart."""
        which = np.searchsorted(self.bounds, rng.random(), side="right")
        kinds = self.recipes[min(int(which), len(self.recipes) - 1)]
        for _ in range(TRIES):
            halves = self._stem_and_rest(rng) if kinds[0] == "stem" else self._pair(kinds, rng)
            if halves is None:
                continue
            target, residual = halves
            asked = text.unambiguous(target.texts, residual.claims)
            if asked:
                back = text.unambiguous(residual.texts, target.claims)
                return self._at_levels(target, residual, asked, back, kinds, rng)
        raise UserError(f"no {kinds[0]} and {kinds[1]} in {TRIES} draws that captions tell apart")

    def _pair(
        self, kinds: tuple[str, str], rng: np.random.Generator
    ) -> tuple[_Source, _Source] | None:
        target = self._source(kinds[0], self.config.target_repeats, rng)
        residual = self._source(kinds[1], self.config.residual_repeats, rng)
        if kinds[1] == "sfx" and rng.random() < self.config.second_share:
            second = self._source(kinds[1], self.config.residual_repeats, rng)
            if residual.claims & second.claims or second.sources & target.sources:
                return None
            gain = 10 ** (rng.uniform(-3, 3) / 20)
            residual = _Source(
                residual.wave + second.wave * np.float32(gain),
                (),
                residual.claims | second.claims,
                residual.sources | second.sources,
            )
        return None if target.sources & residual.sources else (target, residual)

    def _source(self, kind: str, repeats: float, rng: np.random.Generator) -> _Source:
        """One sound laid out in time, at an active level of 0 dBFS."""
        if kind == "song":
            stems = self.songs[int(rng.integers(len(self.songs)))]
            wave = sum(self._song_piece(stems, rng), np.zeros(self.samples, np.float32))
            claims = [text.claims_of(self.recordings[number]) for number in stems]
            sources = frozenset(self.recordings[number].source_id for number in stems)
            half = _Source(wave, text.MUSIC, frozenset(text.MUSIC).union(*claims), sources)
        else:
            if rng.random() < 0.5:  # rare captions as often as common ones
                choices = self.captions[kind][int(rng.integers(len(self.captions[kind])))]
            else:
                choices = self.groups[kind]
            number = choices[int(rng.integers(len(choices)))]
            lay = self._repeated if rng.random() < repeats else self._events
            recording = self.recordings[number]
            half = _Source(
                lay(number, self._speed(rng), rng),
                text.texts_of(recording),
                text.claims_of(recording),
                frozenset((recording.source_id,)),
            )
        level = energy.active_rms(half.wave, self.sample_rate)
        wave = self._tilted(half.wave, rng) / np.float32(max(level, 1e-6))
        return dataclasses.replace(half, wave=wave)

    def _stem_and_rest(self, rng: np.random.Generator) -> tuple[_Source, _Source] | None:
        stems = self.songs[int(rng.integers(len(self.songs)))]
        chosen = int(rng.integers(len(stems)))
        pieces = self._song_piece(stems, rng)
        target = pieces.pop(chosen) * np.float32(
            10 ** (rng.uniform(*self.config.stem_gain_db) / 20)
        )
        rest = sum(pieces, np.zeros(self.samples, np.float32))
        sounding = energy.active_cells(target, self.sample_rate).mean() * self.samples
        if sounding < 0.25 * self.sample_rate or energy.active_rms(rest, self.sample_rate) < 1e-3:
            return None
        recording = self.recordings[stems[chosen]]
        others = [self.recordings[n] for number, n in enumerate(stems) if number != chosen]
        claims = [frozenset(text.texts_of(other)) for other in others]
        names = text.texts_of(others[0]) if len(others) == 1 else ()
        return (
            _Source(
                target, text.texts_of(recording), frozenset(text.texts_of(recording)), frozenset()
            ),
            _Source(rest, names, frozenset().union(*claims), frozenset()),
        )

    def _song_piece(self, stems: list[int], rng: np.random.Generator) -> list[Wave]:
        """The same random stretch of every stem, at one speed."""
        speed = self._speed(rng)
        length = min(self.waves.length(number) for number in stems)
        need = int(np.ceil(self.samples * speed)) + 8
        start = int(rng.integers(max(1, length - need)))
        return [self._clip(number, speed, start)[0] for number in stems]

    def _clip(self, number: int, speed: float, start: int = 0) -> tuple[Wave, int]:
        """A clip from `start` on, played `speed` times as fast, cut or padded; and its length."""
        need = int(np.ceil(self.samples * speed)) + 8
        wave = self.waves.read(number, start, need)
        if speed != 1.0:
            wave = soxr.resample(wave, self.sample_rate * speed, self.sample_rate)
        out = np.zeros(self.samples, np.float32)
        length = min(len(wave), self.samples)
        out[:length] = wave[:length]
        return out, length

    def _speed(self, rng: np.random.Generator) -> float:
        changed = rng.random() < self.config.speed_share
        return float(1 + rng.uniform(-1, 1) * self.config.speed) if changed else 1.0

    def _events(self, number: int, speed: float, rng: np.random.Generator) -> Wave:
        """One to three times the same clip, silence around and between."""
        clip, length = self._clip(number, speed)
        longest = int(self.samples * rng.uniform(0.4, 0.9))
        if length > longest:  # of a long clip any part, so that it too begins and ends
            skip = int(rng.integers(max(1, length - longest)))
            clip, length = self._faded(clip[skip : skip + longest]), longest
        rest = int(0.25 * self.sample_rate)
        most = max(1, min(3, (self.samples + rest) // (length + rest)))
        count = int(rng.integers(1, most + 1))
        free = self.samples - count * length - (count - 1) * rest
        places = np.sort(rng.integers(free + 1, size=count))
        out = np.zeros(self.samples, np.float32)
        for place in places + np.arange(count) * (length + rest):
            out[place : place + length] += clip[:length]
        return out

    def _repeated(self, number: int, speed: float, rng: np.random.Generator) -> Wave:
        """The clip, or others of the same source and caption, again and again until the end."""
        out = np.zeros(self.samples, np.float32)
        siblings = self.siblings[self._sibling_key(number)]
        long = self.waves.length(number) - int(self.samples * speed)
        clip, length = self._clip(number, speed, int(rng.integers(long)) if long > 0 else 0)
        place = 0
        while place < self.samples:
            end = min(place + length, self.samples)
            out[place:end] = clip[: end - place]
            place = end + int(rng.integers(int(REST_S * self.sample_rate)))
            if len(siblings) > 1 and rng.random() < 0.3:
                number = siblings[int(rng.integers(len(siblings)))]
                clip, length = self._clip(number, speed)
        return out

    def _faded(self, wave: Wave) -> Wave:
        ramp = np.linspace(0, 1, int(FADE_S * self.sample_rate), dtype=np.float32)
        wave = wave.copy()
        wave[: len(ramp)] *= ramp
        wave[-len(ramp) :] *= ramp[::-1]
        return wave

    def _tilted(self, wave: Wave, rng: np.random.Generator) -> Wave:
        """Highs up or down by up to `tilt_db` in a gentle slope around 1 kHz; random polarity."""
        gain = 10 ** (rng.uniform(-1, 1) * self.config.tilt_db / 20) * rng.choice((-1.0, 1.0))
        spectrum = np.fft.rfft(wave)
        relative = np.fft.rfftfreq(len(wave), 1000.0 / self.sample_rate).astype(np.float32)
        share = relative / (1 + relative)
        spectrum *= np.sign(gain) * np.exp(share * np.float32(np.log(abs(gain))))
        return np.fft.irfft(spectrum, len(wave)).astype(np.float32)

    def _at_levels(
        self,
        target: _Source,
        residual: _Source,
        asked: tuple[str, ...],
        back: tuple[str, ...],
        kinds: tuple[str, str],
        rng: np.random.Generator,
    ) -> Mixture:
        """Sets the target's level and its ratio to the residual; the sum does not clip."""
        rate, config = self.sample_rate, self.config
        level = 10 ** (rng.uniform(*config.level_db) / 20) / energy.active_rms(target.wave, rate)
        ratio = level
        if kinds[0] != "stem":
            wanted = 10 ** (rng.uniform(*config.snr_db) / 20)
            loud = energy.active_rms(target.wave, rate) / energy.active_rms(residual.wave, rate)
            ratio = level * loud / wanted
        peak = float(np.abs(level * target.wave + ratio * residual.wave).max())
        limit = min(1.0, 0.95 / max(peak, 1e-9))
        one, other = (
            (half.wave * np.float32(gain * limit))
            for half, gain in ((target, level), (residual, ratio))
        )
        return Mixture(one + other, one, other, asked, back, "/".join(kinds))
