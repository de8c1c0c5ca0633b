"""Sounds with captions for the training of an audio tower: the stems of a latent cache.

Each target of a record, and each residual that can be a target, is one sound; its texts say what it
is. All captions of a cache are one list, of which a sound has one and all those are wrong that its
claims (`data/text.py`) do not allow for.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool

from sam_audio_jax.bounds import Checked, NonNegative, Seconds, Seed, Share, Workers
from sam_audio_jax.codec.probe import is_same_network
from sam_audio_jax.config import FREE
from sam_audio_jax.data.examples import active_in_crops, crop_start
from sam_audio_jax.data.excerpts import shuffled
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.data.pipeline import BatchStream
from sam_audio_jax.data.records import Record
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.data.text import choose
from sam_audio_jax.errors import UserError

KEPT_CLAIMS = 20_000  # sets of claims whose wrong captions are kept
NOISE = 1  # generator (seed, index, NOISE) of what is added to the latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionedConfig(Checked, where="data"):
    """The latent caches of a tower's training, and what is done to their latents; all ours."""

    cache: str = dataclasses.field(default="", metadata=FREE)  # made by `sam-audio prepare`
    # Of recordings that the training does not have, for the evaluations; empty: no evaluation.
    valid_cache: str = dataclasses.field(default="", metadata=FREE)
    seconds: Seconds = 4.0  # of a crop; longer sounds are read in pieces of it later
    caption_share: Share = 0.5  # texts that are the caption itself, not one of its alternatives
    noise_share: Share = 0.5  # sounds whose latents get noise
    noise: NonNegative = 0.3  # its largest deviation; latents have one of about 1
    workers: Workers = dataclasses.field(default=0, metadata=FREE)  # processes; 0: a thread
    seed: Seed = 0


@dataclasses.dataclass(frozen=True)
class CaptionedStem:
    """Where a sound is in a cache, and what it is called, finest first."""

    record: int
    residual: bool  # it is the residual of the record, not its target
    texts: tuple[str, ...]


class CaptionedLatents:
    """Random access to an endless list of examples: all sounds of a cache once a round, shuffled.

    An example has `latents` (float32 `[frames, channels]`), `valid` (bool `[frames]`), `caption`
    (int32, a number of `captions`) and `wrong` (bool `[captions]`: those that are not true of the
    sound). It is a function of (seed, index) alone.
    """

    def __init__(self, config: CaptionedConfig, folder: str, captions: Sequence[str] = ()):
        """Reads every record once; `captions` are put before those that the cache has.

        Raises `UserError` for a cache whose records do not say what else is true of a sound.
        """
        self.config, self.cache = config, Cache(folder)
        self.sounds = list(_sounds(self.cache))
        if not self.sounds:
            raise UserError(f"{folder} has no sound with a caption")
        known = dict.fromkeys(captions)
        own = sorted({text for sound in self.sounds for text in sound.texts} - set(known))
        self.captions = (*known, *own)
        self._number = {text: number for number, text in enumerate(self.captions)}
        index = self.cache.index
        self.frame_rate = index["sample_rate"] / index["hop"]
        record_frames = index["samples"] // index["hop"]
        self.frames = min(max(1, round(config.seconds * self.frame_rate)), record_frames)
        self.channels: int = index["channels"]

    def __len__(self) -> int:
        return 2**48

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        round_number, position = divmod(index, len(self.sounds))
        order = shuffled(self.config.seed, 0, round_number, len(self.sounds))
        rng = np.random.default_rng((self.config.seed, index))
        return self.example(int(order[position]), rng)

    def example(self, number: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """One sound; without `rng` its most active crop, as it is, with its finest text."""
        config, sound = self.config, self.sounds[number]
        record = self.cache[sound.record]
        if record is None:
            raise UserError(f"record {sound.record} of {self.cache.folder} cannot be read")
        source, active, claims = _source(record, residual=sound.residual)
        if rng is None:
            start, text = int(np.argmax(active_in_crops(active, self.frames))), sound.texts[0]
        else:
            start = crop_start([active], self.frames, self.frame_rate, rng)
            text = choose(sound.texts, config.caption_share, rng)
        latents = source[start : start + self.frames].astype(np.float32)
        if rng is not None and rng.random() < config.noise_share:
            deviation = np.float32(rng.uniform(0, config.noise))
            latents = latents + deviation * rng.standard_normal(latents.shape, np.float32)
        return {
            "latents": latents,
            "valid": np.ones(self.frames, bool),
            "caption": np.asarray(self._number[text], np.int32),
            "wrong": _wrong(self.captions, claims),
        }

    def check_codec(self, other: "CaptionedLatents") -> None:
        """Raises `UserError` unless both caches have the latents of one codec."""
        for name in ("sample_rate", "hop", "channels"):
            ours, theirs = self.cache.index[name], other.cache.index[name]
            if ours != theirs:
                raise UserError(
                    f"{other.cache.folder} has {name} {theirs}, {self.cache.folder} has {ours}"
                )
        if not is_same_network(self.cache.index["probe"], other.cache.index["probe"]):
            raise UserError(
                f"{other.cache.folder} was made with another codec than {self.cache.folder}"
            )


def captioned_batches(
    examples: CaptionedLatents, batch: int, *, index: int, count: int
) -> BatchStream:
    """Batches for training; the rows of the `index`-th of `count` processes."""
    return BatchStream(
        examples,
        batch,
        frames=examples.frames,
        workers=examples.config.workers,
        process_index=index,
        process_count=count,
    )


def _sounds(cache: Cache) -> Iterator[CaptionedStem]:
    """Yields the sounds of all records that can be read."""
    for number in range(len(cache)):
        if (record := cache[number]) is None:
            continue
        for residual, texts in enumerate((record.target_texts, record.residual_texts)):
            _, active, claims = _source(record, residual=bool(residual))
            if not texts or not active.any():
                continue
            if not claims:
                raise UserError(
                    f"{cache.folder} has records of an earlier version, which do not say what is "
                    "true of a sound; make a new one with `sam-audio prepare`"
                )
            yield CaptionedStem(number, bool(residual), texts)


def _source(
    record: Record, *, residual: bool
) -> tuple[np.ndarray, Bool[np.ndarray, " frames"], frozenset[str]]:
    """Latents, activity and claims of one sound of a record."""
    if residual:
        return record.residual, record.residual_active, frozenset(record.residual_claims)
    return record.target, record.target_active, frozenset(record.target_claims)


@functools.lru_cache(maxsize=KEPT_CLAIMS)
def _wrong(captions: tuple[str, ...], claims: frozenset[str]) -> Bool[np.ndarray, " captions"]:
    """Which captions are not true of a sound of which the claims are."""
    claimed = Present(claims)
    return np.array([not claimed.may_mean(caption) for caption in captions])
