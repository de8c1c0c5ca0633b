"""Mixtures of recordings and songs (arXiv 2512.18099, data section of the appendix).

A mixture is `target + residual`; either is laid out in time on its own (`arrange.py`).
"""

import collections
import copy
import dataclasses

import numpy as np

from sam_audio_jax.data import energy, text
from sam_audio_jax.data.arrange import Arranger, Placement, Samples
from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.data.source import Recording, Song
from sam_audio_jax.data.waves import Waves
from sam_audio_jax.errors import UserError

TRIES = 50  # draws of a pair before the material counts as too poor
RARE_SHARE = 0.5  # draws in which every caption is as likely as any other, however rare
PEAK = 0.95  # largest magnitude of a mixture
LEAST_STEM_S = 0.25  # of sound in a stem that is a target
LEAST_REST_RMS = 1e-3  # of the other stems together


@dataclasses.dataclass(frozen=True)
class Mixture:
    """`mixture == target + residual` to the bit; the texts of one do not hold for the other."""

    mixture: Samples
    target: Samples
    residual: Samples
    target_texts: tuple[str, ...]
    residual_texts: tuple[str, ...]  # empty: the residual has no name and cannot be a target
    category: str  # "target/residual" of the recipe
    # Stretches of single recordings that the two consist of, to lay out their videos.
    target_places: tuple[Placement, ...] = ()
    residual_places: tuple[Placement, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Source:
    """One of the two sounds of a mixture before its level is set."""

    wave: Samples
    texts: tuple[str, ...]  # finest first; empty if it has no name
    claims: frozenset[str]  # every phrase that is true of it
    sources: frozenset[str]  # `source_id` of its recordings
    places: tuple[Placement, ...] = ()  # of its recording; none if it is several sounds at once


class Mixer:
    """Draws mixtures of `samples` samples; all randomness comes from the generator of a call."""

    def __init__(
        self,
        config: MixConfig,
        recordings: list[Recording],
        songs: list[Song],
        waves: Waves,
        sample_rate: int,
        samples: int,
    ):
        """Raises `UserError` when the recordings allow none of the config's recipes."""
        self.config, self.recordings = config, recordings
        self.arranger = Arranger(config, waves, sample_rate, samples)
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

    @property
    def samples(self) -> int:
        """Length of every mixture."""
        return self.arranger.samples

    def with_length(self, samples: int) -> "Mixer":
        """The same mixer for mixtures of another length."""
        other = copy.copy(self)
        other.arranger = dataclasses.replace(self.arranger, samples=samples)
        return other

    def draw(self, rng: np.random.Generator) -> Mixture:
        """Returns one mixture.

        Raises `UserError` if the recordings hold no two whose captions distinguish them.
        """
        which = np.searchsorted(self.bounds, rng.random(), side="right")
        kinds = self.recipes[min(int(which), len(self.recipes) - 1)]
        for _ in range(TRIES):
            pair = self._stem_and_rest(rng) if kinds[0] == "stem" else self._pair(kinds, rng)
            if pair is None:
                continue
            target, residual = pair
            target_texts = text.unambiguous(target.texts, residual.claims)
            if not target_texts:
                continue
            residual_texts = text.unambiguous(residual.texts, target.claims)
            waves = self._at_levels(target.wave, residual.wave, kinds[0] == "stem", rng)
            return Mixture(
                waves[0] + waves[1],
                *waves,
                target_texts,
                residual_texts,
                "/".join(kinds),
                target.places,
                residual.places,
            )
        raise UserError(
            f"no {kinds[0]} and {kinds[1]} in {TRIES} draws whose captions distinguish them"
        )

    def _set_recipes(self) -> None:
        """Keeps the recipes that the material allows."""
        available = {kind for kind, members in self.groups.items() if len(members) > 1}
        available |= {"song", "stem", "rest"} if self.songs else set()
        recipes = [r for r in self.config.recipes if {r[0], r[1]} <= available and r[2] > 0]
        if not recipes:
            raise UserError("none of data.mix.recipes can be made from these recordings")
        self.recipes = [recipe[:2] for recipe in recipes]
        weights = np.array([recipe[2] for recipe in recipes])
        self.bounds = np.cumsum(weights / weights.sum())

    def _sibling_key(self, number: int) -> tuple[str, str]:
        return self.recordings[number].source_id, self.recordings[number].caption

    def _pair(
        self, kinds: tuple[str, str], rng: np.random.Generator
    ) -> tuple[_Source, _Source] | None:
        """A target and a residual of two kinds; None if they share a source or a claim."""
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
        source = self._song(rng) if kind == "song" else self._recording(kind, repeats, rng)
        level = energy.active_rms(source.wave, self.arranger.sample_rate)
        wave = self.arranger.tilted(source.wave, rng) / np.float32(max(level, 1e-6))
        return dataclasses.replace(source, wave=wave)

    def _song(self, rng: np.random.Generator) -> _Source:
        stems = self.songs[int(rng.integers(len(self.songs)))]
        laid_out = self.arranger.stems(stems, rng)
        wave = sum((stem.wave for stem in laid_out), np.zeros(self.samples, np.float32))
        claims = [text.claims_of(self.recordings[number]) for number in stems]
        sources = frozenset(self.recordings[number].source_id for number in stems)
        return _Source(wave, text.MUSIC, frozenset(text.MUSIC).union(*claims), sources)

    def _recording(self, kind: str, repeats: float, rng: np.random.Generator) -> _Source:
        if rng.random() < RARE_SHARE:
            choices = self.captions[kind][int(rng.integers(len(self.captions[kind])))]
        else:
            choices = self.groups[kind]
        number = choices[int(rng.integers(len(choices)))]
        repeat = rng.random() < repeats
        speed = self.arranger.speed(rng)
        if repeat:
            siblings = self.siblings[self._sibling_key(number)]
            laid_out = self.arranger.repeated(number, siblings, speed, rng)
        else:
            laid_out = self.arranger.events(number, speed, rng)
        recording = self.recordings[number]
        sources = frozenset((recording.source_id,))
        texts, claims = text.texts_of(recording), text.claims_of(recording)
        return _Source(laid_out.wave, texts, claims, sources, laid_out.places)

    def _stem_and_rest(self, rng: np.random.Generator) -> tuple[_Source, _Source] | None:
        """A stem of a song and the sum of its others; None where one of them is nearly silent."""
        rate = self.arranger.sample_rate
        stems = self.songs[int(rng.integers(len(self.songs)))]
        chosen = int(rng.integers(len(stems)))
        laid_out = self.arranger.stems(stems, rng)
        gain_db = rng.uniform(*self.config.stem_gain_db)
        chosen_stem = laid_out.pop(chosen)
        target = chosen_stem.wave * np.float32(10 ** (gain_db / 20))
        rest = sum((stem.wave for stem in laid_out), np.zeros(self.samples, np.float32))
        sounding = energy.active_cells(target, rate).mean() * self.samples
        if sounding < LEAST_STEM_S * rate or energy.active_rms(rest, rate) < LEAST_REST_RMS:
            return None
        texts = text.texts_of(self.recordings[stems[chosen]])
        others = [self.recordings[n] for number, n in enumerate(stems) if number != chosen]
        claims = [frozenset(text.texts_of(other)) for other in others]
        names = text.texts_of(others[0]) if len(others) == 1 else ()
        places = laid_out[0].places if len(others) == 1 else ()
        return (
            _Source(target, texts, frozenset(texts), frozenset(), chosen_stem.places),
            _Source(rest, names, frozenset().union(*claims), frozenset(), places),
        )

    def _at_levels(
        self, target: Samples, residual: Samples, keep_ratio: bool, rng: np.random.Generator
    ) -> tuple[Samples, Samples]:
        """Target and residual with the target's level and their ratio set; the sum cannot clip.

        With `keep_ratio` both get the same gain: the stems of a song have levels of their own.
        """
        rate, config = self.arranger.sample_rate, self.config
        level = 10 ** (rng.uniform(*config.level_db) / 20) / energy.active_rms(target, rate)
        residual_gain = level
        if not keep_ratio:
            ratio = 10 ** (rng.uniform(*config.snr_db) / 20)
            loud = energy.active_rms(target, rate) / energy.active_rms(residual, rate)
            residual_gain = level * loud / ratio
        peak = float(np.abs(level * target + residual_gain * residual).max())
        limit = min(1.0, PEAK / max(peak, 1e-9))
        return target * np.float32(level * limit), residual * np.float32(residual_gain * limit)
