"""Fixed mixtures of held-out own recordings: a bench of its own, rendered once.

The folder has the format of every bench (docs/data.md, "Fixed mixtures"), with its clips inside, as
mono FLAC at the codec's rate. Classes are mixed with each other, stems of a song with its rest.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sam_audio_jax import audio
from sam_audio_jax.data import energy
from sam_audio_jax.data.text import UNNAMED
from sam_audio_jax.data.waves import chosen_channel
from sam_audio_jax.eval.mixtures import PlacedClip, activity
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.eval.statistics import ALL
from sam_audio_jax.files import read_jsonl, whole_folder, write_jsonl
from sam_audio_jax.finetune.own_recordings import OwnRecordings, OwnSound
from sam_audio_jax.finetune.split_sources import HELD_OUT, loose, part_of

SEED = 0
MOST = 48  # mixtures of classes, and of stems
OF_EACH = (2, 12)  # fewest and most mixtures of one prompt
SNR_DB = 5.0  # of target to residual, plus or minus; stems keep their levels
PEAK = 0.9
TRIES = 20  # stretches of a long recording, of which the one is taken in which most is sounding
LEAST_S = 0.25  # of sound in a target

Line = dict[str, Any]


class BenchComposer:
    """Lays held-out sounds out in mixtures of one length; draws from one generator."""

    def __init__(self, own: OwnRecordings, rate: int, seconds: float):
        self.sounds = part_of(own, HELD_OUT)
        self.songs = [song for song in own.songs if song.split == HELD_OUT]
        self.rate, self.samples = rate, round(seconds * rate)
        self.rng = np.random.default_rng(SEED)
        self.waves = {sound.recording.id: _clip(sound, rate) for sound in self.sounds}
        self.captions = {s.recording.id: s.recording.caption for s in self.sounds}

    def lines(self) -> list[Line]:
        """The lines of mixtures.jsonl."""
        return [*self._of_classes(), *self._of_stems()]

    def _of_classes(self) -> Iterator[Line]:
        groups = loose(self.sounds)
        if len(groups) < 2:
            return
        least, most = OF_EACH
        count = min(most, max(least, MOST // len(groups)))
        for caption in sorted(groups):
            others = [s for name in sorted(groups) if name != caption for s in groups[name]]
            order = self.rng.permutation(len(groups[caption]))
            for number in range(count):
                target = groups[caption][order[number % len(order)]].recording
                free = [s for s in others if s.recording.source_id != target.source_id]
                if not free:
                    break
                residual = free[int(self.rng.integers(len(free)))].recording
                clips = [self._once(target.id)], self._filled(residual.id)
                snr = float(self.rng.uniform(-SNR_DB, SNR_DB))
                yield self._line(number, caption, clips, snr)

    def _of_stems(self) -> Iterator[Line]:
        stems = [(song, stem) for song in self.songs for stem in song.stems]
        count = min(4, max(1, MOST // max(len(stems), 1)))
        numbers: dict[str, int] = {}
        for song, stem in stems:
            caption = self.captions[stem]
            if caption.lower() == UNNAMED:
                continue
            if any(self.captions[one] == caption for one in song.stems if one != stem):
                continue  # the residual has what the prompt asks for; a training skips it, too
            for _ in range(count):
                stretch = self._stretch(stem, min(len(self.waves[name]) for name in song.stems))
                clips = {name: PlacedClip(name, *stretch, 0, 1.0) for name in song.stems}
                target = [clips.pop(stem)]
                rest = list(clips.values())
                if not (self._sounds(target) and self._sounds(rest)):
                    break
                numbers[caption] = numbers.get(caption, -1) + 1
                yield self._line(numbers[caption], caption, (target, rest), None)

    def _once(self, clip: str) -> PlacedClip:
        start, length = self._stretch(clip, len(self.waves[clip]))
        offset = int(self.rng.integers(self.samples - length + 1))
        return PlacedClip(clip, start, length, offset, 1.0)

    def _filled(self, clip: str) -> list[PlacedClip]:
        """A clip again and again until the end."""
        start, length = self._stretch(clip, len(self.waves[clip]))
        offsets = range(0, self.samples, length)
        return [
            PlacedClip(clip, start, min(length, self.samples - offset), offset, 1.0)
            for offset in offsets
        ]

    def _stretch(self, clip: str, end: int) -> tuple[int, int]:
        """Start and length of what is taken of a clip before its sample `end`."""
        if end <= self.samples:
            return 0, end
        starts = self.rng.integers(end - self.samples + 1, size=TRIES).tolist()
        cells = energy.active_cells(self.waves[clip][:end], self.rate)
        cell = round(energy.CELL_S * self.rate)

        def share(start: int) -> float:
            return float(cells[start // cell : (start + self.samples) // cell].mean())

        return max(starts, key=share), self.samples

    def _render(self, clips: Sequence[PlacedClip]) -> Wave:
        wave = np.zeros(self.samples, np.float32)
        for one in clips:
            part = self.waves[one.clip][one.start : one.start + one.samples]
            wave[one.offset : one.offset + one.samples] += part
        return wave

    def _sounds(self, clips: Sequence[PlacedClip]) -> bool:
        active = energy.active_cells(self._render(clips), self.rate)
        return float(active.sum() * energy.CELL_S) >= LEAST_S

    def _line(
        self,
        number: int,
        caption: str,
        clips: tuple[Sequence[PlacedClip], Sequence[PlacedClip]],
        snr_db: float | None,
    ) -> Line:
        waves = [self._render(one) for one in clips]
        levels = [energy.active_rms(wave, self.rate) for wave in waves]
        gain = 1.0 if snr_db is None else levels[0] / levels[1] / 10 ** (snr_db / 20)
        limit = min(1.0, PEAK / max(float(np.abs(waves[0] + gain * waves[1]).max()), 1e-9))
        gains = round(limit, 6), round(limit * gain, 6)
        mixture = gains[0] * waves[0] + gains[1] * waves[1]
        captions = sorted({self.captions[one.clip] for one in clips[1]})
        setting = _setting(caption)
        return {
            "id": f"{setting[:100].replace(' ', '-')}-{number:03d}",
            "setting": setting,
            "caption": caption,
            "samples": self.samples,
            "sample_rate": self.rate,
            "spans": [
                [round(start, 2), min(round(end, 2), self.samples / self.rate)]
                for start, end in activity(waves[0], self.rate)
            ],
            "target": [dataclasses.asdict(one) | {"gain": gains[0]} for one in clips[0]],
            "residual": [dataclasses.asdict(one) | {"gain": gains[1]} for one in clips[1]],
            "residual_captions": captions,
            "mixture_peak": round(float(np.abs(mixture).max()), 4),
        }


def _setting(caption: str) -> str:
    """The caption as the name of a setting, and of files."""
    name = " ".join("".join(c if c.isalnum() or c in " -'" else " " for c in caption).split())
    return f"the class {name}" if name in ("", ALL) else name


def _clip(sound: OwnSound, rate: int) -> Wave:
    """A sound as it is in its clip: mono, at the bench's rate, in 16 bits."""
    recording = sound.recording
    found = audio.load(recording.path, recording.track)
    samples = chosen_channel(found.samples, recording)
    wave = audio.mono(samples, audio.mixing_weights(samples, found.sample_rate))
    wave = audio.resample(wave, found.sample_rate, rate)
    wave = wave * np.float32(min(1.0, 0.99 / max(float(np.abs(wave).max()), 1e-9)))
    return (np.round(wave * 32_768) / 32_768).astype(np.float32)


def write_bench(own: OwnRecordings, path: pathlib.Path, rate: int, seconds: float) -> int:
    """Writes the bench of the held-out recordings, whole or not at all; returns its mixtures.

    The same recordings give the same bench.
    """
    composer = BenchComposer(own, rate, seconds)
    lines = composer.lines()
    used = {one["clip"] for line in lines for one in line["target"] + line["residual"]}
    with whole_folder(path, overwrite=True) as part:
        manifest = []
        for number, sound in enumerate(s for s in composer.sounds if s.recording.id in used):
            recording, file = sound.recording, f"clips/{number:05d}.flac"
            wave = composer.waves[recording.id]
            audio.write_flac(part / file, wave[None], rate)
            manifest.append(
                {
                    "id": recording.id,
                    "path": file,
                    "caption": recording.caption,
                    "category": recording.category,
                    "source_id": recording.source_id,
                    "duration": len(wave) / rate,
                    "license": recording.license,
                    "split": HELD_OUT,
                }
            )
        write_jsonl(part / "manifest.jsonl", manifest)
        write_jsonl(part / "mixtures.jsonl", lines)
    return len(lines)


def is_bench_of(path: pathlib.Path, rate: int, seconds: float) -> bool:
    """Whether there is a bench of this rate and length."""
    wanted = rate, round(seconds * rate)
    lines = read_jsonl(path / "mixtures.jsonl")
    return {(line["sample_rate"], line["samples"]) for line in lines} == {wanted}
