"""The recordings and songs of a run by kind and caption, and how one of them is drawn."""

import collections
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax.data import text
from sam_audio_jax.data.config import MixConfig
from sam_audio_jax.data.likeness import NearCaptions, Present
from sam_audio_jax.data.recording import Recording, Song
from sam_audio_jax.encoders.text_form import normalize

TRIES = 50  # draws of an absent sound before a mixture counts as one that holds all


class Catalogue:
    """Numbers of the recordings that can be used, by kind, caption and song.

    `groups` has the recordings of each kind, `captions` the same in one list for each caption,
    `songs` the stems of each song of two or more. All randomness comes from the generator of a
    call.
    """

    def __init__(
        self,
        config: MixConfig,
        recordings: Sequence[Recording],
        songs: Sequence[Song],
        usable: Sequence[int],
    ):
        self.config, self.recordings = config, recordings
        numbers = {recordings[number].id: number for number in usable}
        stems = [[numbers[stem] for stem in song.stems if stem in numbers] for song in songs]
        self.songs = [song for song in stems if len(song) > 1]
        self.groups = {"any": [n for n in usable if not recordings[n].song]}
        for kind in ("speech", "sfx", "instrument"):
            self.groups[kind] = [n for n in usable if recordings[n].category == kind]
        for kind in config.single_kinds:
            singles = [n for n in self.groups[kind] if text.is_single(recordings[n])]
            self.groups[kind] = singles
        self.captions: dict[str, list[list[int]]] = {}
        self._near: dict[str, NearCaptions] = {}
        self._bounds: dict[str, Float[np.ndarray, " captions"]] = {}
        for kind, members in self.groups.items():
            by_caption = collections.defaultdict(list)
            for number in members:
                by_caption[recordings[number].caption].append(number)
            self.captions[kind] = list(by_caption.values())
            self._near[kind] = NearCaptions([normalize(caption) for caption in by_caption])
            sizes = np.array([len(group) for group in by_caption.values()], np.float64)
            weights = sizes**config.caption_power
            self._bounds[kind] = np.cumsum(weights / max(weights.sum(), 1.0))
        self._siblings = collections.defaultdict(list)
        for number in usable:
            self._siblings[self._sibling_key(number)].append(number)
        named = {recordings[number].caption: number for number in usable}
        self._texts = [text.texts_of(recordings[number]) for number in named.values()]
        self._texts += [text.MUSIC] if self.songs else []

    def kinds(self) -> set[str]:
        """The kinds of sound that there is material for."""
        available = {kind for kind, members in self.groups.items() if len(members) > 1}
        return available | ({"song", "stem", "rest"} if self.songs else set())

    def siblings(self, number: int) -> list[int]:
        """The recordings of the same source and caption, with this one."""
        return self._siblings[self._sibling_key(number)]

    def _sibling_key(self, number: int) -> tuple[str, str]:
        return self.recordings[number].source_id, self.recordings[number].caption

    def song(self, rng: np.random.Generator) -> list[int]:
        """The stems of a random song."""
        return self.songs[int(rng.integers(len(self.songs)))]

    def recording(self, kind: str, rng: np.random.Generator, near: str | None = None) -> int:
        """A recording of one kind, by its caption or one by one as the config says.

        With `near`, a caption, it is of one near that, where there is any.
        """
        choices = self._choices(kind, rng, near)
        return choices[int(rng.integers(len(choices)))]

    def _choices(self, kind: str, rng: np.random.Generator, near: str | None) -> list[int]:
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
        for _ in range(TRIES):
            texts = self._texts[int(rng.integers(len(self._texts)))]
            if not any(map(present.may_include, texts)):
                return texts
        return ()
