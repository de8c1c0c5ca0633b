"""Mixtures of recordings and songs (arXiv 2512.18099, data section of the appendix).

A mixture is `target + residual`; either is laid out in time on its own (`arrange.py`).
"""

import copy
import dataclasses
import logging

import numpy as np

from sam_audio_jax.data import energy, text
from sam_audio_jax.data.arrange import Arranger, Placement, Samples
from sam_audio_jax.data.catalogue import Catalogue
from sam_audio_jax.data.config import SUM, MixConfig
from sam_audio_jax.data.equaliser import equalised
from sam_audio_jax.data.lossy import coded
from sam_audio_jax.data.mixture import Mixture
from sam_audio_jax.data.plausible import plausible_pairs
from sam_audio_jax.data.recording_table import RecordingTable
from sam_audio_jax.data.rooms import reverberated
from sam_audio_jax.data.waves import WaveReader
from sam_audio_jax.errors import UnusableError, UserError

log = logging.getLogger(__name__)

TRIES = 50  # draws of a pair before the material counts as too poor

PEAK = 0.95  # largest magnitude of a mixture
LEAST_STEM_S = 0.25  # of sound in a stem that is a target
LEAST_REST_RMS = 1e-3  # of the other stems together


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
        table: RecordingTable,
        waves: WaveReader,
        sample_rate: int,
        samples: int,
    ):
        """Raises `UserError` when the recordings allow none of the config's recipes."""
        self.config, self.recordings = config, table.recordings
        self.arranger = Arranger(config, waves, sample_rate, samples)
        self.catalogue = Catalogue(config, table)
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

        A recording that turns out to be unusable is drawn again. Raises `UserError` if the
        recordings hold no two whose captions distinguish them, or none that can be used.
        """
        which = np.searchsorted(self.bounds, rng.random(), side="right")
        kinds = self.recipes[min(int(which), len(self.recipes) - 1)]
        unusable = None
        for _ in range(TRIES):
            try:
                mixture = self._draw(kinds, rng)
            except UnusableError as error:
                unusable = error
                continue
            if mixture is not None:
                return mixture
        if unusable is not None:
            raise UserError(
                f"no {kinds[0]} and {kinds[1]} in {TRIES} draws that can be used: {unusable}"
            )
        raise UserError(
            f"no {kinds[0]} and {kinds[1]} in {TRIES} draws whose captions distinguish them"
        )

    def _draw(self, kinds: tuple[str, str], rng: np.random.Generator) -> Mixture | None:
        """A mixture of two kinds; None where their captions do not distinguish them."""
        of_song = kinds[0] in ("stem", "speaker")
        pair = self._stem_and_rest(kinds[0], rng) if of_song else self._pair(kinds, rng)
        if pair is None:
            return None
        target, residual = pair
        target_texts = text.unambiguous(target.texts, residual.claims)
        if not target_texts:
            return None
        residual_texts = text.unambiguous(residual.texts, target.claims)
        waves = self._at_levels(target.wave, residual.wave, of_song, rng)
        waves, offset = self._with_offset(waves, rng)
        music = frozenset(text.MUSIC if kinds[0] == "stem" else ())
        return Mixture(
            waves[0] + waves[1],
            *waves,
            target_texts,
            residual_texts,
            "/".join(kinds),
            target.places,
            residual.places,
            target.claims | music,
            residual.claims | music,
            residual_offset=offset,
            absolute=self.config.silence == "absolute",
        )

    def _set_recipes(self) -> None:
        """Keeps the recipes that the material allows."""
        available = self.catalogue.kinds()
        recipes = [
            recipe
            for recipe in self.config.recipes
            if {recipe[0], *recipe[1].split(SUM)} <= available and recipe[2] > 0
        ]
        if not recipes:
            raise UserError("none of data.mix.recipes can be made from these recordings")
        if missing := [one for one in self.config.recipes if one[2] > 0 and one not in recipes]:
            named = ", ".join(f"{target}/{residual}" for target, residual, _ in missing)
            log.warning("of data.mix.recipes there are no recordings for %s", named)
        self.recipes = [recipe[:2] for recipe in recipes]
        weights = np.array([recipe[2] for recipe in recipes])
        self.bounds = np.cumsum(weights / weights.sum())

    def _pair(
        self, kinds: tuple[str, str], rng: np.random.Generator
    ) -> tuple[_Source, _Source] | None:
        """A target and a residual of two kinds; None if they share a source or a claim."""
        target = self._source(kinds[0], self.config.target_repeats, rng)
        kind, *others = kinds[1].split(SUM)
        near = target.texts[0] if self._draws_near(kinds, rng) else None
        number = self._plausible(kind, target, rng)
        residual = self._source(kind, self.config.residual_repeats, rng, near, number)
        if kind == "sfx" and not others and rng.random() < self.config.second_share:
            others = [kind]
        for other in others:
            second = self._source(other, self.config.residual_repeats, rng)
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

    def _plausible(self, kind: str, target: _Source, rng: np.random.Generator) -> int | None:
        """A recording that the table of plausible pairs has for a target; None: any."""
        config = self.config
        if kind == "song" or not config.plausible_share or rng.random() >= config.plausible_share:
            return None
        phrase = plausible_pairs(config.plausible).draw(target.texts[0], rng)
        return None if phrase is None else self.catalogue.called(kind, phrase, rng)

    def _draws_near(self, kinds: tuple[str, str], rng: np.random.Generator) -> bool:
        """Whether the residual is drawn from the captions near the target's."""
        share = 0.0 if "song" in kinds else self.config.near_share
        return bool(share) and rng.random() < share

    def _source(
        self,
        kind: str,
        repeats: float,
        rng: np.random.Generator,
        near: str | None = None,
        number: int | None = None,
    ) -> _Source:
        """One sound laid out in time, at an active level of 0 dBFS.

        With a caption `near` that; of the recording `number` if that is given.
        """
        rate, config = self.arranger.sample_rate, self.config
        if kind == "song":
            source = self._song(rng)
        else:
            number = self.catalogue.recording(kind, rng, near) if number is None else number
            source = self._recording(number, repeats, rng)
        level = energy.active_rms(source.wave, rate)
        if not level:  # amplified, its noise would pass for the sound
            raise UnusableError(f"the part of a {kind} that was drawn is silent", "silent part")
        wave = self.arranger.tilted(source.wave, rng)
        wave *= np.float32(1 / level)
        if config.filter_share and rng.random() < config.filter_share:
            wave = equalised(wave, rate, config.filter_db, rng)
        if config.reverb_share and rng.random() < config.reverb_share:
            wave = reverberated(wave, rate, config.impulse_responses, rng)
        if config.coded_share and rng.random() < config.coded_share:
            wave = coded(wave, rate, config.codecs, rng)
        return dataclasses.replace(source, wave=wave)

    def _song(self, rng: np.random.Generator) -> _Source:
        stems = self.catalogue.song(rng)
        laid_out = self.arranger.stems(stems, rng)
        wave = sum((stem.wave for stem in laid_out), np.zeros(self.samples, np.float32))
        claims = [text.claims_of(self.recordings[number]) for number in stems]
        sources = frozenset(self.recordings[number].source_id for number in stems)
        return _Source(wave, text.MUSIC, frozenset(text.MUSIC).union(*claims), sources)

    def _recording(self, number: int, repeats: float, rng: np.random.Generator) -> _Source:
        repeat = rng.random() < repeats
        speed = self.arranger.speed(self.recordings[number].category, rng)
        if repeat:
            siblings = self.catalogue.siblings(number)
            laid_out = self.arranger.repeated(number, siblings, speed, rng)
        else:
            laid_out = self.arranger.events(number, speed, rng)
        recording = self.recordings[number]
        sources = frozenset((recording.source_id,))
        texts, claims = text.texts_of(recording), text.claims_of(recording)
        return _Source(laid_out.wave, texts, claims, sources, laid_out.places)

    def _stem_and_rest(self, kind: str, rng: np.random.Generator) -> tuple[_Source, _Source] | None:
        """A stem of a song, or a speaker of a conversation, and the sum of the others.

        None where one of them is nearly silent, and for a stem without a name.
        """
        rate, is_song = self.arranger.sample_rate, kind == "stem"
        stems = self.catalogue.song(rng) if is_song else self.catalogue.conversation(rng)
        chosen = int(rng.integers(len(stems)))
        if self.recordings[stems[chosen]].stem == text.UNNAMED:
            return None
        laid_out = self.arranger.stems(stems, rng)
        gain_db = rng.uniform(*(self.config.stem_gain_db if is_song else self.config.snr_db))
        chosen_stem = laid_out.pop(chosen)
        target = chosen_stem.wave * np.float32(10 ** (gain_db / 20))
        rest = sum((stem.wave for stem in laid_out), np.zeros(self.samples, np.float32))
        sounding = energy.active_cells(target, rate).mean() * self.samples
        if sounding < LEAST_STEM_S * rate or energy.active_rms(rest, rate) < LEAST_REST_RMS:
            return None
        texts = text.texts_of(self.recordings[stems[chosen]])
        others = [self.recordings[n] for number, n in enumerate(stems) if number != chosen]
        claims_of = text.texts_of if is_song else text.claims_of
        claims = [frozenset(claims_of(other)) for other in others]
        is_named = len(others) == 1 and others[0].stem != text.UNNAMED
        names = text.texts_of(others[0]) if is_named else ()
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
        loudness = energy.active_rms(target, rate)
        level = 10 ** (rng.uniform(*config.level_db) / 20) / loudness
        residual_gain = level
        if not keep_ratio:
            ratio = 10 ** (rng.uniform(*config.snr_db) / 20)
            residual_gain = level * loudness / energy.active_rms(residual, rate) / ratio
        peak = float(np.abs(level * target + residual_gain * residual).max())
        limit = min(1.0, PEAK / max(peak, 1e-9))
        return target * np.float32(level * limit), residual * np.float32(residual_gain * limit)

    def _with_offset(
        self, waves: tuple[Samples, Samples], rng: np.random.Generator
    ) -> tuple[tuple[Samples, Samples], float]:
        """Target and residual, in which a constant is where one is drawn; and that constant."""
        config = self.config
        if not config.offset_share or rng.random() >= config.offset_share:
            return waves, 0.0
        target, residual = waves
        mixture = target + residual
        largest = config.offset * float(np.sqrt(np.mean(np.square(mixture))))
        offset = rng.uniform(-largest, largest)
        gain = np.float32(min(1.0, PEAK / max(float(np.abs(mixture + offset).max()), 1e-9)))
        return (target * gain, (residual + np.float32(offset)) * gain), float(gain * offset)
