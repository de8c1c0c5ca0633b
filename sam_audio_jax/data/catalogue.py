"""The recordings and songs of a run by kind and caption, and how one of them is drawn."""

import functools

import numpy as np

from sam_audio_jax.data import text
from sam_audio_jax.data.config import RECORDED, MixConfig
from sam_audio_jax.data.likeness import NearCaptions, Present
from sam_audio_jax.data.recording_table import SINGLE, Numbers, RecordingTable
from sam_audio_jax.encoders.text_form import normalize

TRIES = 50  # draws of an absent sound before a mixture counts as one that holds all


class Catalogue:
    """Numbers of the recordings that can be used, by kind, caption and song.

    `groups` has the recordings of each kind, `captions` the same in one list for each caption,
    `songs` the stems of each song of two or more, `conversations` the speakers of each. All
    randomness comes from the generator of a call.
    """

    def __init__(self, config: MixConfig, table: RecordingTable):
        self.config, self.table = config, table
        self.recordings = table.recordings
        self.songs, self.conversations = table.lists("songs"), table.lists("conversations")
        names = {kind: SINGLE * (kind in config.single_kinds) + kind for kind in RECORDED}
        self.groups = {kind: table.numbers(name) for kind, name in names.items()}
        self.captions = {kind: table.lists(f"{name} captions") for kind, name in names.items()}
        self._bounds = {}
        for kind, captions in self.captions.items():
            if config.caption_power:
                weights = np.diff(captions.starts).astype(np.float64) ** config.caption_power
                self._bounds[kind] = np.cumsum(weights / max(weights.sum(), 1.0))

    @functools.cached_property
    def _near(self) -> dict[str, NearCaptions]:
        """The index of the words of all captions, which only near residuals need."""
        return {
            kind: NearCaptions([normalize(self.recordings[int(one[0])].caption) for one in lists])
            for kind, lists in self.captions.items()
        }

    def kinds(self) -> set[str]:
        """The kinds of sound that there is material for."""
        available = {kind for kind, members in self.groups.items() if len(members) > 1}
        if len(self.songs):
            available |= {"song", "stem", "rest"}
        return available | ({"speaker", "others"} if len(self.conversations) else set())

    def siblings(self, number: int) -> list[int]:
        """The recordings of the same source and caption, with this one."""
        return self.table.siblings(number).tolist()

    def song(self, rng: np.random.Generator) -> list[int]:
        """The stems of a random song."""
        return self.songs[int(rng.integers(len(self.songs)))].tolist()

    def conversation(self, rng: np.random.Generator) -> list[int]:
        """The speakers of a random conversation."""
        return self.conversations[int(rng.integers(len(self.conversations)))].tolist()

    def recording(self, kind: str, rng: np.random.Generator, near: str | None = None) -> int:
        """A recording of one kind, by its caption or one by one as the config says.

        With `near`, a caption, it is of one near that, where there is any.
        """
        choices = self._choices(kind, rng, near)
        return int(choices[int(rng.integers(len(choices)))])

    def called(self, kind: str, phrase: str, rng: np.random.Generator) -> int | None:
        """A recording of one kind of which a phrase is true; None where there is none."""
        captions = self._near[kind].called(phrase)
        if not captions:
            return None
        choices = self.captions[kind][captions[int(rng.integers(len(captions)))]]
        return int(choices[int(rng.integers(len(choices)))])

    def _choices(self, kind: str, rng: np.random.Generator, near: str | None) -> Numbers:
        caption = None if near is None else self._near[kind].draw(near, rng)
        if caption is not None:
            return self.captions[kind][caption]
        if rng.random() >= self.config.caption_draws:
            return self.groups[kind]
        captions = self.captions[kind]
        if not self.config.caption_power:
            return captions[int(rng.integers(len(captions)))]
        which = int(np.searchsorted(self._bounds[kind], rng.random(), side="right"))
        return captions[min(which, len(captions) - 1)]

    def absent(self, present: Present, rng: np.random.Generator) -> tuple[str, ...]:
        """The texts of a sound that cannot be taken for any of those that are `present`.

        Every caption is equally likely. Empty where none was found in `TRIES` draws.
        """
        named = self.table.numbers("last of caption")
        count = len(named) + bool(len(self.songs))
        for _ in range(TRIES):
            which = int(rng.integers(count))
            recording = self.recordings[int(named[which])] if which < len(named) else None
            if recording is not None and recording.stem == text.UNNAMED:
                continue
            texts = text.MUSIC if recording is None else text.texts_of(recording)
            if not any(map(present.may_include, texts)):
                return texts
        return ()
