"""Composes the fixed mixtures that ship with the package: five settings, clips of `valid` only.

A mixture is a line of `mixtures.jsonl`: events of clips, counted in samples, for target and
residual (`sam_audio_jax/eval/mixtures.py` reads them).
"""

import itertools
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.data import energy
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.source import load_manifests, load_songs
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.activity import runs

SEED = 11
SECONDS = {"sfx": 6.0, "speech": 8.0, "speaker": 8.0, "music": 8.0, "instr": 8.0}
SNR_DB = {"sfx": 5.0, "speech": 3.0, "speaker": 3.0, "music": 5.0, "instr": 4.0}  # plus or minus
PEAK = 0.9
SPOKEN = ("woman speaking", "speech", None)  # None: the clip's own caption

Event = dict[str, Any]
Events = list[tuple[str, int, int, int]]  # clip, its first sample, samples, offset in the mixture
Wave = Float[np.ndarray, " samples"]


class Composer:
    """The held-out clips of some folders, and the ways to lay them out; draws from one generator.

    `known` are the captions that a training may have. Raises `UserError` for clips of several
    sample rates, which no mixture can have.
    """

    def __init__(self, folders: Sequence[pathlib.Path], known: Collection[str], seed: int = SEED):
        manifests = [str(folder / "manifest.jsonl") for folder in folders]
        self.clips = {clip.id: clip for clip in load_manifests(manifests, "valid")}
        self.waves, rates = {}, {}
        for clip in self.clips.values():
            sound = audio.load(clip.path)
            weights = audio.mixing_weights(sound.samples, sound.sample_rate)  # as `render`
            self.waves[clip.id] = audio.mono(sound.samples, weights)
            rates.setdefault(sound.sample_rate, clip.path)
        self.rate, *others = rates
        if others:
            named = " and ".join(f"{path} has {rate} Hz" for rate, path in [*rates.items()][:2])
            raise UserError(f"all clips of a list of mixtures must have one sample rate: {named}")
        self.songs = [list(song.stems) for song in load_songs(manifests, "valid")]
        self.known = known
        self.rng = np.random.default_rng(seed)

    def clips_of(self, category: str) -> list[Recording]:
        """Clips of one category without the stems of songs, in random order."""
        clips = [c for c in self.clips.values() if c.category == category and not c.song]
        return [clips[number] for number in self.rng.permutation(len(clips))]

    def events(self, clip: Recording, samples: int) -> Events:
        """One to three times the clip with silence between them."""
        length, rest = min(len(self.waves[clip.id]), samples), int(0.4 * self.rate)
        most = min(3, (samples + rest) // (length + rest))
        count = int(self.rng.integers(1, most + 1))
        free = samples - count * length - (count - 1) * rest
        starts = np.sort(self.rng.integers(free + 1, size=count))
        offsets = starts + np.arange(count) * (length + rest)
        return [(clip.id, 0, length, int(offset)) for offset in offsets]

    def loop(self, clip: Recording, samples: int) -> Events:
        """The clip again and again until the end."""
        events, offset = [], 0
        while offset < samples:
            length = min(len(self.waves[clip.id]), samples - offset)
            events.append((clip.id, 0, length, offset))
            offset += length + int(self.rng.integers(int(0.3 * self.rate)))
        return events

    def song(self, stems: list[str], samples: int, start: int) -> Events:
        """The same stretch of every stem."""
        return [(stem, start, samples, 0) for stem in stems]

    def random_start(self, stems: list[str], samples: int) -> int:
        """A random start of a stretch that is within all stems."""
        return int(self.rng.integers(min(len(self.waves[stem]) for stem in stems) - samples + 1))

    def render(self, events: Events, samples: int) -> Wave:
        """The sum of events."""
        wave = np.zeros(samples, np.float64)
        for clip, start, length, offset in events:
            wave[offset : offset + length] += self.waves[clip][start : start + length]
        return wave

    def line(
        self,
        setting: str,
        number: int,
        caption: str,
        target: Events,
        residual: Events,
        *,
        residual_caption: str | None = None,
        snr_db: float | None = None,
    ) -> dict[str, Any]:
        """The line of one mixture; without `snr_db` target and residual keep their levels."""
        samples = round(SECONDS[setting] * self.rate)
        waves = self.render(target, samples), self.render(residual, samples)
        levels = [energy.active_rms(wave, self.rate) for wave in waves]
        gain = 1.0 if snr_db is None else levels[0] / levels[1] / 10 ** (snr_db / 20)
        limit = min(1.0, PEAK / float(np.abs(waves[0] + gain * waves[1]).max()))
        gains = round(limit, 6), round(limit * gain, 6)
        mixture = gains[0] * waves[0] + gains[1] * waves[1]
        active = energy.activity(waves[0].astype(np.float32), self.rate, self.rate // 100)
        captions = sorted({self.clips[event[0]].caption for event in residual})
        return {
            "id": f"{setting}-{number:03d}",
            "setting": setting,
            "caption": caption,
            "samples": samples,
            "sample_rate": self.rate,
            "snr_db": round(20 * float(np.log10(levels[0] * gains[0] / levels[1] / gains[1])), 2),
            "spans": [[start / 100, end / 100] for start, end in runs(active)],
            "target": _listed(target, gains[0]),
            "residual": _listed(residual, gains[1]),
            "residual_captions": [residual_caption] if residual_caption else captions,
            "mixture_peak": round(float(np.abs(mixture).max()), 4),
        }

    def snr(self, setting: str) -> float:
        """A random ratio of target to residual, in dB."""
        return float(self.rng.uniform(-SNR_DB[setting], SNR_DB[setting]))


def _listed(events: Events, gain: float) -> list[Event]:
    names = ("clip", "start", "samples", "offset")
    return [dict(zip(names, event, strict=True)) | {"gain": gain} for event in events]


def mixtures(folder: pathlib.Path, known: Collection[str]) -> list[dict[str, Any]]:
    """The lines of mixtures.jsonl for the manifest in `folder`; targets have `known` captions."""
    make = Composer([folder], known)
    makers = (_effects, _speech, _speakers, _music, _instruments)
    return [line for maker in makers for line in maker(make)]


def _effects(make: Composer) -> Iterator[dict[str, Any]]:
    samples = round(SECONDS["sfx"] * make.rate)
    clips = make.clips_of("sfx")
    unambiguous = sorted({c.caption for c in clips if c.caption in make.known})
    by_caption = {name: [c for c in clips if c.caption == name] for name in unambiguous}
    residuals = itertools.cycle(clips)
    for number, caption in zip(range(14), itertools.cycle(unambiguous), strict=False):
        target = by_caption[caption][number // len(unambiguous) % len(by_caption[caption])]
        other = next(
            c for c in residuals if c.caption != caption and c.source_id != target.source_id
        )
        lay = make.loop if number % 3 else make.events
        events = make.events(target, samples), lay(other, samples)
        yield make.line("sfx", number, caption, *events, snr_db=make.snr("sfx"))


def _speech(make: Composer) -> Iterator[dict[str, Any]]:
    samples = round(SECONDS["speech"] * make.rate)
    effects = iter(c for c in make.clips_of("sfx") if c.caption != "person singing")
    voices = itertools.cycle(make.clips_of("speech"))
    for number, voice in zip(range(7), voices, strict=False):
        named = None
        if number % 3 == 0 and make.songs:
            stems = make.songs[number % len(make.songs)]
            residual = make.song(stems, samples, make.random_start(stems, samples))
            named = "music playing"
        else:
            residual = make.loop(next(effects), samples)
        yield make.line(
            "speech",
            number,
            SPOKEN[number % 3] or voice.caption,
            make.events(voice, samples),
            residual,
            residual_caption=named,
            snr_db=make.snr("speech"),
        )


def _speakers(make: Composer) -> Iterator[dict[str, Any]]:
    samples = round(SECONDS["speaker"] * make.rate)
    voices = make.clips_of("speech")
    pairs = [(a, b) for a in voices for b in voices if a.caption != b.caption]
    for number in range(min(6, len(pairs))):
        target, other = pairs[number * len(pairs) // min(6, len(pairs))]
        events = make.events(target, samples), make.events(other, samples)
        yield make.line("speaker", number, target.caption, *events, snr_db=make.snr("speaker"))


def _music(make: Composer) -> Iterator[dict[str, Any]]:
    samples = round(SECONDS["music"] * make.rate)
    others = [
        c for pair in zip(make.clips_of("sfx"), make.clips_of("speech"), strict=False) for c in pair
    ]
    for number, other in zip(range(6), others, strict=False):
        stems = make.songs[number % len(make.songs)]
        target = make.song(stems, samples, make.random_start(stems, samples))
        events = target, make.events(other, samples)
        yield make.line("music", number, "music playing", *events, snr_db=make.snr("music"))


def _instruments(make: Composer) -> Iterator[dict[str, Any]]:
    """Each stem of a song against the rest of it; single instruments against each other."""
    samples = round(SECONDS["instr"] * make.rate)
    number = 0
    for stems in make.songs:
        for stem in stems:
            clip = make.clips[stem]
            sounding = np.array(clip.spans).ravel()
            last = min(len(make.waves[name]) for name in stems) - samples
            start = int(np.clip(sounding[0] * make.rate - make.rate, 0, last))
            rest = [name for name in stems if name != stem]
            events = make.song([stem], samples, start), make.song(rest, samples, start)
            yield make.line("instr", number, clip.stem or clip.caption, *events)
            number += 1
    clips = make.clips_of("instrument")
    targets = [clip for clip in clips if clip.caption in make.known]
    for position, target in enumerate(targets):
        other = next(c for c in clips[position:] + clips if c.caption != target.caption)
        lay = make.loop if position % 2 else make.events
        events = make.events(target, samples), lay(other, samples)
        yield make.line("instr", number, target.caption, *events, snr_db=make.snr("instr"))
        number += 1
