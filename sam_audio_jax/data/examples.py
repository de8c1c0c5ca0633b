"""Training examples: a mixture with prompts drawn for it, from waves or from cached latents.

Example `i` is a function of (seed, i) alone, and of its bucket where lengths vary. Keys and shapes:
`valid` bool [frames], `text_ids` int32 and `text_mask` bool [text_tokens], `anchors` int32 [frames]
(ids of `separator.prompts.ANCHOR_IDS`), and mixture, target, residual as float32 [samples] or
[frames, channels]. A cache with features adds `teacher_features` float16 [segments,
width], those of the target, and `teacher_features_offset` float32 [], the frames of the first
segment that are before the example. Data with video features adds `video` float16 [frames, width],
those of the target; zeros where it has none, and where they were dropped.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float16, Int32

from sam_audio_jax.data import energy
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.length_buckets import Bucket
from sam_audio_jax.data.mix import Mixer, Mixture
from sam_audio_jax.data.prompter import Example, Prompter
from sam_audio_jax.data.records import SIGNALS, Record
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.data.video_tracks import VideoTracks
from sam_audio_jax.errors import UserError

BAD_TRIES = 20  # unreadable records in a row that are replaced by others
ENDLESS = 2**48  # length of a list of examples that never ends


class MixedExamples:
    """Examples with waves, mixed when they are read."""

    def __init__(
        self,
        config: DataConfig,
        mixer: Mixer,
        sample_rate: int,
        hop: int,
        video: VideoTracks | None = None,
    ):
        self.config, self.mixer, self.hop, self.video = config, mixer, hop, video
        self.prompter = Prompter(config.prompts, sample_rate, hop)
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.config.seed, index))
        mixture = self.mixer.draw(rng)
        frames = len(mixture.mixture) // self.hop
        size = draw_size(self.config.batches.short_share, frames, rng)
        return self._example(mixture, size, frames, rng)

    def in_bucket(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, mixed at a length of the bucket and padded to its frames."""
        rng = np.random.default_rng((self.config.seed, index))
        size = bucket.size(bucket.frames, rng)
        mixture = self.mixer.with_length(size * self.hop).draw(rng)
        return self._example(mixture, size, bucket.frames, rng)

    def _example(
        self, mixture: Mixture, size: int, frames: int, rng: np.random.Generator
    ) -> Example:
        """The first `size` frames of a mixture, padded to `frames`, with prompts."""
        example = {}
        for name in SIGNALS:
            example[name] = np.zeros(frames * self.hop, np.float32)
            example[name][: size * self.hop] = getattr(mixture, name)[: size * self.hop]
        active = np.zeros((2, frames), bool)
        for row, name in enumerate(("target", "residual")):
            activity = energy.activity(getattr(mixture, name), self.sample_rate, self.hop)
            active[row, :size] = activity[:size]
        example |= self.prompter.draw(mixture.target_texts, active[0], active[1], size, rng)
        if self.video is not None:
            features = self.video.frames(mixture.target_places, frames)
            features[size:] = 0
            example |= self.prompter.video(features, rng)
        return example


class CachedExamples:
    """Examples with latents: crops of the records of a cache, all of them once per round."""

    def __init__(self, config: DataConfig, sample_rate: int, hop: int, frames: int):
        """Raises `UserError` for a cache of another sample rate or hop."""
        self.config, self.frames, self.cache = config, frames, Cache(config.cache)
        index = self.cache.index
        if (index["sample_rate"], index["hop"]) != (sample_rate, hop):
            raise UserError(
                f"{config.cache} was made at {index['sample_rate']} Hz with hop {index['hop']}, "
                f"the codec has {sample_rate} Hz and hop {hop}"
            )
        self.prompter = Prompter(config.prompts, sample_rate, hop)
        self.segment = index["segment_s"] * sample_rate / hop  # frames; 0: no features
        self.video_width = index["video_width"]  # 0: no record has a video

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        size = functools.partial(draw_size, self.config.batches.short_share)
        return self._example(index, self.frames, size)

    def in_bucket(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, cropped to a length of the bucket and padded to its frames."""
        return self._example(index, bucket.frames, bucket.size)

    def _example(
        self, index: int, frames: int, size_of: Callable[[int, np.random.Generator], int]
    ) -> Example:
        """A crop of a record, padded to `frames`; its size is drawn by `size_of(longest, rng)`."""
        rng = np.random.default_rng((self.config.seed, index))
        record = self._record(index, rng)
        swapped = bool(record.residual_texts) and rng.random() < self.config.prompts.swap_share
        target, residual = ("residual", "target") if swapped else ("target", "residual")
        length = len(record.mixture)
        size = size_of(min(frames, length), rng)
        start = self._start(getattr(record, f"{target}_active"), size, rng)
        example = {}
        for name, source in {"mixture": "mixture", "target": target, "residual": residual}.items():
            example[name] = np.zeros((frames, record.mixture.shape[1]), np.float32)
            example[name][:size] = getattr(record, source)[start : start + size]
        if self.segment:
            features = getattr(record, f"{target}_features")
            example |= self._teacher_features(features, start, frames)
        active = np.zeros((2, frames), bool)
        for row, source in enumerate((target, residual)):
            active[row, :size] = getattr(record, f"{source}_active")[start : start + size]
        texts = record.residual_texts if swapped else record.target_texts
        example |= self.prompter.draw(texts, active[0], active[1], size, rng)
        if self.video_width:
            features = np.zeros((frames, self.video_width), np.float16)
            if (seen := getattr(record, f"{target}_video")) is not None:
                features[:size] = seen[start : start + size]
            example |= self.prompter.video(features, rng)
        return example

    def _record(self, index: int, rng: np.random.Generator) -> Record:
        """The record of an example, or a random other one if that cannot be read."""
        count = len(self.cache)
        round_number, position = divmod(index, count)
        record = self.cache[int(_order(self.config.seed, round_number, count)[position])]
        for _ in range(BAD_TRIES):
            if record is not None:
                return record
            record = self.cache[int(rng.integers(count))]
        if record is None:
            raise UserError(f"{self.config.cache}: {BAD_TRIES} records in a row cannot be read")
        return record

    def _teacher_features(
        self, segments: Float16[np.ndarray, "segments width"], start: int, frames: int
    ) -> Example:
        """The segments under and around the frames from `start` on; the last is repeated."""
        first = max(int(start / self.segment) - 1, 0)
        count = segments_around(frames, self.segment)
        numbers = np.minimum(np.arange(first, first + count), len(segments) - 1)
        offset = np.float32(start - first * self.segment)
        return {
            "teacher_features": segments[numbers],
            "teacher_features_offset": np.asarray(offset),
        }

    def _start(
        self, active: Bool[np.ndarray, " frames"], size: int, rng: np.random.Generator
    ) -> int:
        """The first frame of a crop of `size`: any that leaves enough of the target to prompt for.

        Enough is the shortest sound that counts as one, or the most that any crop has of it.
        """
        active_before = np.concatenate([[0], np.cumsum(active)])
        active_within = active_before[size:] - active_before[:-size]
        shortest = round(energy.MIN_S * self.prompter.frame_rate)
        enough = min(int(active_within.max()), shortest)
        starts = np.flatnonzero(active_within >= enough)
        return int(starts[rng.integers(len(starts))])


def draw_size(short_share: float, frames: int, rng: np.random.Generator) -> int:
    """Real frames of an example: `frames`, or with probability `short_share` fewer."""
    if rng.random() >= short_share:
        return frames
    return int(rng.integers(max(1, frames // 3), frames + 1))


def segments_around(frames: int, segment: float) -> int:
    """The number of segments, each of `segment` frames, that an example of `frames` has."""
    return math.ceil(frames / segment) + 2


@functools.lru_cache(maxsize=4)
def _order(seed: int, round_number: int, size: int) -> Int32[np.ndarray, " records"]:
    return np.random.default_rng((seed, round_number, size)).permutation(size).astype(np.int32)
