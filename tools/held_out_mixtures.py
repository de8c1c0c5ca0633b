"""Composes a large list of fixed mixtures from the validation recordings of some data folders.

`python -m tools.held_out_mixtures --source DIR [--source DIR ...] --out DIR [--count 200]`

Each source DIR holds manifest.jsonl and, with songs, songs.jsonl. The new folder gets a
manifest.jsonl that names the sound where it is, and a mixtures.jsonl for `sam-audio evaluate
--bench DIR`: `count` mixtures of each setting, of two sources but for the stems of songs. Each line
says whether its caption is one of the training recordings (`seen`), another wording of it
(`alt_caption`), a caption of a sound that is not there (`absent`), and for its two sounds other
recordings of the same caption (`example`, `other_example`), of the validation split or else of
training. The same folders, count and seed give the same lines.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, command
from sam_audio_jax.data import likeness, text, wordings
from sam_audio_jax.data.recording import Recording
from sam_audio_jax.data.source import load_manifest, load_manifests, read_objects
from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import whole_folder, write_jsonl
from tools.fixed_mixtures import SECONDS, Composer, Events

COUNT, SEED = 200, 12
SETTINGS = ("sfx", "speech", "speaker", "music", "instr")
LOOPED = 0.3  # targets that are repeated to the end; voices never are
TRIES = 500  # draws of a residual for a target, or of an absent sound

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sound:
    """One of the two sounds of a mixture."""

    texts: tuple[str, ...]  # the first is its caption
    claims: frozenset[str]  # every phrase that is true of it
    sources: frozenset[str]
    clips: tuple[Recording, ...]
    start: int = 0  # of the stretch of a song's stems


class Bench:
    """The mixtures of every setting; all randomness is of the composer's generator."""

    def __init__(self, folders: Sequence[pathlib.Path], seed: int):
        manifests = [str(folder / "manifest.jsonl") for folder in folders]
        counts = collections.Counter(one.id for path in manifests for one in load_manifest(path))
        if twice := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"several sources have the id {twice[0]}: one list needs different ids")
        recordings = load_manifests(manifests, "train")
        train = {normalize(one.caption): one for one in recordings}
        self.known = frozenset(train)
        self.absent = [text.texts_of(train[caption])[0] for caption in sorted(train)]
        self.make = Composer(folders, self.known, seed)
        self.rng = self.make.rng
        self.captions: dict[str, dict[str, list[Recording]]] = collections.defaultdict(dict)
        for clip in self.make.clips.values():
            if not clip.song:
                self.captions[clip.category].setdefault(clip.caption, []).append(clip)
        # Recordings of each caption: those of the validation split, and those of training.
        self.examples: dict[str, tuple[list[Recording], list[Recording]]] = {}
        for number, clips in enumerate((self.make.clips.values(), recordings)):
            for clip in clips:
                if not clip.song:
                    self.examples.setdefault(normalize(clip.caption), ([], []))[number].append(clip)

    def lines(self, count: int) -> list[Line]:
        """`count` mixtures of each setting."""
        return [self._line(name, number) for name in SETTINGS for number in range(count)]

    def _line(self, setting: str, number: int) -> Line:
        """One mixture; draws again where a prompt would fit both of its sounds."""
        for _ in range(TRIES):
            target, residual, keep_levels = self._pair(setting, number)
            if target.sources & residual.sources and not keep_levels:
                continue
            ambiguous = any(likeness.implied(target.texts[0], one) for one in residual.claims)
            for caption in residual.texts[:1]:
                ambiguous |= any(likeness.implied(caption, one) for one in target.claims)
                ambiguous |= likeness.may_be_same(caption, target.texts[0])
            if not ambiguous:
                return self._composed(setting, number, target, residual, keep_levels)
        raise UserError(f"the validation recordings have too few captions for {setting!r}")

    def _pair(self, setting: str, number: int) -> tuple[Sound, Sound, bool]:
        """Target, residual, and whether they keep their levels. Kinds of residual alternate."""
        third = number % 3
        if setting == "instr" and third == 2 and self.make.songs:
            return (*self._stem(setting), True)
        if setting == "music":
            return self._song(setting), self._recording(("sfx", "speech")[number % 2]), False
        kind = {"sfx": "sfx", "instr": "instrument"}.get(setting, "speech")
        target = self._recording(kind, number)
        if setting == "speech" and third == 2 and self.make.songs:
            return target, self._song(setting), False
        others = {"speech": "instrument" if third == 1 else "sfx"}
        return target, self._recording(others.get(setting, kind)), False

    def _recording(self, category: str, number: int | None = None) -> Sound:
        """A recording of caption `number`, counted around, or of a random caption."""
        captions = self.captions[category]
        which = int(self.rng.integers(len(captions))) if number is None else number % len(captions)
        group = captions[sorted(captions)[which]]
        clip = group[int(self.rng.integers(len(group)))]
        sources = frozenset([clip.source_id])
        return Sound(text.texts_of(clip), text.claims_of(clip), sources, (clip,))

    def _song(self, setting: str) -> Sound:
        """A random stretch of all stems of a song."""
        stems = self.make.songs[int(self.rng.integers(len(self.make.songs)))]
        clips = tuple(self.make.clips[stem] for stem in stems)
        claims = frozenset(text.MUSIC).union(*map(text.claims_of, clips))
        start = self.make.random_start(stems, self._samples(setting))
        return Sound(text.MUSIC, claims, frozenset(clip.source_id for clip in clips), clips, start)

    def _stem(self, setting: str) -> tuple[Sound, Sound]:
        """A stem of a song, where it sounds, and all others together."""
        stems = self.make.songs[int(self.rng.integers(len(self.make.songs)))]
        clips = [self.make.clips[stem] for stem in stems]
        clip = clips.pop(int(self.rng.integers(len(clips))))
        last = min(len(self.make.waves[stem]) for stem in stems) - self._samples(setting)
        begin = clip.spans[int(self.rng.integers(len(clip.spans)))][0] - 1.0
        start = int(np.clip(begin * self.make.rate, 0, last))
        claims = [frozenset(text.texts_of(other)) for other in clips]
        one = Sound(text.texts_of(clip), text.claims_of(clip), frozenset(), (clip,), start)
        rest = Sound((), frozenset().union(*claims), frozenset(), tuple(clips), start)
        return one, rest

    def _samples(self, setting: str) -> int:
        return round(SECONDS[setting] * self.make.rate)

    def _events(self, sound: Sound, setting: str, looped: float) -> Events:
        samples = self._samples(setting)
        if sound.clips[0].song:
            return self.make.song([clip.id for clip in sound.clips], samples, sound.start)
        loops = self.rng.random() < looped and sound.clips[0].category != "speech"
        lay = self.make.loop if loops else self.make.events
        return lay(sound.clips[0], samples)

    def _composed(
        self, setting: str, number: int, target: Sound, residual: Sound, keep_levels: bool
    ) -> Line:
        """The line of a mixture: its events, and the prompts that it is evaluated with."""
        caption, music = target.texts[0], len(residual.clips) > 1 and not keep_levels
        line = self.make.line(
            setting,
            number,
            caption,
            self._events(target, setting, LOOPED),
            self._events(residual, setting, 1 - LOOPED),
            residual_caption=text.MUSIC[0] if music else None,
            snr_db=None if keep_levels else self.make.snr(setting),
        )
        line["seen"] = caption in self.known or target.texts == text.MUSIC
        alternatives = text.unambiguous(target.texts[1:], residual.claims)
        alternatives = list(alternatives) or wordings.synonyms(caption)
        if alternatives:
            line["alt_caption"] = alternatives[int(self.rng.integers(len(alternatives)))]
        line["absent"] = self._absent(likeness.Present(target.claims, residual.claims))
        present = target.sources | residual.sources
        for name, sound in (("example", target), ("other_example", residual)):
            if example := self._example(sound, present, number):
                line[name] = example.id
        return line

    def _example(self, sound: Sound, present: frozenset[str], number: int) -> Recording | None:
        """Another recording of a sound, of a source that the mixture does not have.

        The source of a voice is its speaker, of whom another recording is an example, too.
        """
        (clip, *more) = sound.clips
        if more or clip.song:
            return None
        for recordings in self.examples[normalize(clip.caption)]:
            others = [one for one in recordings if one.source_id not in present]
            if clip.category == "speech":
                others = [one for one in recordings if one.id != clip.id]
            if others:
                return others[number % len(others)]
        return None

    def _absent(self, present: likeness.Present) -> str:
        """The caption of a training recording that cannot be taken for anything present."""
        for _ in range(TRIES):
            caption = self.absent[int(self.rng.integers(len(self.absent)))]
            if not present.may_include(caption):
                return caption
        phrases = ", ".join(sorted(present.phrases))
        raise UserError(f"no training caption is absent from a mixture of {phrases}")


def write(folders: Sequence[pathlib.Path], out: pathlib.Path, count: int, seed: int) -> list[Line]:
    """Writes the folder, whole or not at all, and returns the lines of its mixtures.jsonl."""
    lines = Bench(folders, seed).lines(count)
    events = [event for line in lines for event in line["target"] + line["residual"]]
    used = {event["clip"] for event in events}
    used |= {line[name] for line in lines for name in ("example", "other_example") if name in line}
    with whole_folder(out) as part:
        named = []
        for folder in folders:
            for _, line in read_objects(folder / "manifest.jsonl"):
                if line["id"] in used:
                    named.append(line | {"path": str((folder / line["path"]).resolve())})
        write_jsonl(part / "manifest.jsonl", named)
        write_jsonl(part / "mixtures.jsonl", lines)
    return lines


@command
def main(argv: list[str]) -> None:
    """Makes the folder that the arguments name, and says what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--out", type=config.local_folder, required=True)
    parser.add_argument("--count", type=at_least(1), default=COUNT, help="of each setting")
    parser.add_argument("--seed", type=at_least(0), default=SEED)
    options = parser.parse_args(argv)
    lines = write(options.source, options.out, options.count, options.seed)
    for setting in SETTINGS:
        chosen = [line for line in lines if line["setting"] == setting]
        found = {
            "mixtures": len(chosen),
            "captions": len({line["caption"] for line in chosen}),
            "of a seen caption": sum(line["seen"] for line in chosen),
            "with another wording": sum("alt_caption" in line for line in chosen),
            "with an example": sum("example" in line for line in chosen),
        }
        print(setting, json.dumps(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
