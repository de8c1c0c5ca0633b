"""Training examples: a mixture with prompts drawn for it, from waves or from cached latents.

Example `i` is a function of (seed, i) alone, and of its bucket where lengths vary. Keys and shapes:
`valid` bool [frames], `text_ids` int32 and `text_mask` bool [text_tokens], `anchors` int32 [frames]
(ids of `separator.prompts.ANCHOR_IDS`), and mixture, target, residual as float32 [samples], or of a
cache as they are stored, float16 [frames, channels], which the training step widens; such arrays
may be read-only views of a record. A cache with features adds `teacher_features` float16 [segments,
width], those of the target, and `teacher_features_offset` float32 [], the frames of the first
segment that are before the example. Where `DataConfig.waves` wants them, a cache adds `waves`
float16 [2, samples], those of target and residual. Data with video features adds `video` float16
[frames, width], those of the target; zeros where it has none, and where they were dropped.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Float16, Int, Int32, Shaped

from sam_audio_jax.data import energy
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.example_kinds import absent_rng, as_absent, is_paired, second_rng
from sam_audio_jax.data.labels import LabelCache
from sam_audio_jax.data.length_buckets import Bucket
from sam_audio_jax.data.likeness import Present
from sam_audio_jax.data.mix import Mixer
from sam_audio_jax.data.mixture import Mixture
from sam_audio_jax.data.prompter import Example, Prompter
from sam_audio_jax.data.records import SIGNALS, Record
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.data.video_tracks import VideoTracks
from sam_audio_jax.errors import UserError

BAD_TRIES = 20  # unreadable records in a row that are replaced by others
ABSENT_TRIES = 50  # records that are asked for a sound that an example does not hold
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
        frames = self.mixer.samples // self.hop

        def draw(rng: np.random.Generator) -> tuple[Mixture, int]:
            mixture = self.mixer.draw(rng)
            return mixture, draw_size(self.config.batches.short_share, frames, rng)

        return self._example(index, frames, draw)

    def in_bucket(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, mixed at a length of the bucket and padded to its frames."""

        def draw(rng: np.random.Generator) -> tuple[Mixture, int]:
            size = bucket.size(bucket.frames, rng)
            return self.mixer.with_length(size * self.hop).draw(rng), size

        return self._example(index, bucket.frames, draw)

    def _example(
        self, index: int, frames: int, draw: Callable[[np.random.Generator], tuple[Mixture, int]]
    ) -> Example:
        """The mixture that `draw` returns with its size, padded to `frames`, with prompts."""
        second = index % 2 == 1 and is_paired(self.config, index)
        rng = np.random.default_rng((self.config.seed, index - second))
        mixture, size = draw(rng)
        if second and mixture.residual_texts:
            mixture, rng = mixture.exchanged(), second_rng(self.config, index)
        elif second:  # the mixture has one prompt only
            rng = np.random.default_rng((self.config.seed, index))
            mixture, size = draw(rng)
        example = {}
        for name in SIGNALS:
            wave = getattr(mixture, name)[: size * self.hop]
            example[name] = np.pad(wave, (0, frames * self.hop - len(wave)))
        active = np.zeros((2, frames), bool)
        active[:, :size] = mixture.activities(self.sample_rate, self.hop)[:, :size]
        texts, others = mixture.target_texts, mixture.residual_claims
        example |= self.prompter.draw(texts, active[0], active[1], size, rng, others)
        if self.video is not None:
            features = self.video.frames(mixture.target_places, frames)
            features[size:] = 0
            example |= self.prompter.video(features, rng)
        if (rng := absent_rng(self.config, index)) is None:
            return example
        present = Present(mixture.target_claims, mixture.residual_claims)
        silence, texts = np.zeros_like(example["target"]), self.mixer.catalogue.absent(present, rng)
        return as_absent(example, silence, texts, present, self.prompter, rng)


class CachedExamples:
    """Examples with latents: crops of the records of a cache, all of them once per round."""

    def __init__(
        self,
        config: DataConfig,
        cache: Cache | LabelCache,
        sample_rate: int,
        hop: int,
        frames: int,
    ):
        """Raises `UserError` for a cache of another sample rate or hop, or without silence."""
        self.config, self.frames, self.hop, self.cache = config, frames, hop, cache
        index = cache.index
        if (index["sample_rate"], index["hop"]) != (sample_rate, hop):
            raise UserError(
                f"{cache.folder} was made at {index['sample_rate']} Hz with hop {index['hop']}, "
                f"the codec has {sample_rate} Hz and hop {hop}"
            )
        self.prompter = Prompter(config.prompts, sample_rate, hop)
        self.segment = index["segment_s"] * sample_rate / hop  # frames; 0: no features
        self.video_width = index["video_width"]  # 0: no record has a video
        if config.waves and not index["waves"]:
            raise UserError(
                f"data.waves=True, but {cache.folder} has no waves of its stems: make it with "
                "`sam-audio prepare ... --data.waves`"
            )
        self.silence = self.cache.silence() if config.prompts.absent_share else None

    @property
    def folders(self) -> str:
        """The folder of the cache, for messages."""
        return self.cache.folder

    @property
    def record_frames(self) -> int:
        """Frames of the cache's records; of the longest one where they differ."""
        return self.cache.index["samples"] // self.cache.index["hop"]

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
        record, swapped, start, size, rng = self._crop(index, frames, size_of)
        target, residual = ("residual", "target") if swapped else ("target", "residual")
        sources = {"mixture": "mixture", "target": target, "residual": residual}
        example = {
            name: padded_to(getattr(record, source)[start : start + size], frames)
            for name, source in sources.items()
        }
        if self.segment:
            features = getattr(record, f"{target}_features")
            example |= self._teacher_features(features, start, frames)
        if self.config.waves:
            cut = slice(start * self.hop, (start + size) * self.hop)
            waves = (getattr(record, f"{source}_wave")[cut] for source in (target, residual))
            example["waves"] = np.stack([padded_to(one, frames * self.hop) for one in waves])
        active = [
            padded_to(getattr(record, f"{source}_active")[start : start + size], frames)
            for source in (target, residual)
        ]
        texts, others = getattr(record, f"{target}_texts"), getattr(record, f"{residual}_claims")
        example |= self.prompter.draw(texts, active[0], active[1], size, rng, others)
        if self.video_width:
            features = np.zeros((frames, self.video_width), np.float16)
            if (seen := getattr(record, f"{target}_video")) is not None:
                features[:size] = seen[start : start + size]
            example |= self.prompter.video(features, rng)
        if self.silence is None or (rng := absent_rng(self.config, index)) is None:
            return example
        return self._as_absent(example, record, start, rng)

    def _crop(
        self, index: int, frames: int, size_of: Callable[[int, np.random.Generator], int]
    ) -> tuple[Record, bool, int, int, np.random.Generator]:
        """The record of an example, whether it is prompted for its residual, start and size of the
        crop, and the generator of its prompts."""
        paired = is_paired(self.config, index)
        first = index - index % 2 if paired else index
        rng = np.random.default_rng((self.config.seed, first))
        record = self._record(first, rng)
        if first != index and not record.residual_texts:  # it has one prompt only
            first, rng = index, np.random.default_rng((self.config.seed, index))
            record = self._record(index, rng)
        swapped = bool(record.residual_texts) and rng.random() < self.config.prompts.swap_share
        size = size_of(min(frames, len(record.mixture)), rng)
        active = [record.target_active, record.residual_active]
        wanted = active if paired and record.residual_texts else active[swapped : swapped + 1]
        start = crop_start(wanted, size, self.prompter.frame_rate, rng)
        if first == index:
            return record, swapped, start, size, rng
        return record, not swapped, start, size, second_rng(self.config, index)

    def _as_absent(
        self, example: Example, record: Record, start: int, rng: np.random.Generator
    ) -> Example:
        """The example prompted for a sound of another record, with the latents of silence."""
        silence, size = cast(Record, self.silence), int(example["valid"].sum())
        target = np.zeros_like(example["target"])
        target[:size] = silence.target[start : start + size]
        present = Present(record.target_claims, record.residual_claims)
        texts = self._absent_texts(present, rng)
        features = silence.target_features
        if texts and features is not None:
            example |= self._teacher_features(features, start, len(example["valid"]))
        return as_absent(example, target, texts, present, self.prompter, rng)

    def _absent_texts(self, present: Present, rng: np.random.Generator) -> tuple[str, ...]:
        """The texts of a sound of another record that cannot be taken for one that is present.

        Raises `UserError` if it is not known what is present, in a record of formats 1 to 3.
        """
        if not present.phrases:
            raise UserError(
                f"{self.cache.folder} has records of an earlier version, which do not say what is "
                "absent (data.prompts.absent_share); make a new one with `sam-audio prepare`"
            )
        for _ in range(ABSENT_TRIES):
            other = self.cache[int(rng.integers(len(self.cache)))]
            if other is None:
                continue
            named = [texts for texts in (other.target_texts, other.residual_texts) if texts]
            texts = named[int(rng.integers(len(named)))]
            if not any(map(present.may_include, texts)):
                return texts
        return ()

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
            raise UserError(f"{self.cache.folder}: {BAD_TRIES} records in a row cannot be read")
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


def crop_start(
    active: Sequence[Bool[np.ndarray, " frames"]],
    size: int,
    frame_rate: float,
    rng: np.random.Generator,
) -> int:
    """The first frame of a crop of `size`: any that leaves enough of a target to prompt for.

    Enough is the shortest sound that counts as one, or the most that any crop has of it. Of
    several targets, that of a pair first, each is left enough of where that can be.
    """
    if size == len(active[0]):  # one crop, for which nothing is drawn
        return 0
    fits = np.ones(len(active[0]) - size + 1, bool)
    for one in active:
        active_within = active_in_crops(one, size)
        enough = min(int(active_within.max()), round(energy.MIN_S * frame_rate))
        fits = both if (both := fits & (active_within >= enough)).any() else fits
    starts = np.flatnonzero(fits)
    return int(starts[rng.integers(len(starts))])


def padded_to(
    rows: Shaped[np.ndarray, "size *width"], frames: int
) -> Shaped[np.ndarray, "frames *width"]:
    """The rows, and zeros after them up to `frames`; where none are missing, a view of the rows."""
    if len(rows) == frames:
        return rows
    whole = np.zeros((frames, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole


def active_in_crops(active: Bool[np.ndarray, " frames"], size: int) -> Int[np.ndarray, " starts"]:
    """The active frames in the crop of `size` from each frame on."""
    active_before = np.concatenate([[0], np.cumsum(active)])
    return active_before[size:] - active_before[:-size]


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
