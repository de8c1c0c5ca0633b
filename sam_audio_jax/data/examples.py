"""Training examples: a mixture with prompts drawn for it, from waves or from cached latents.

Example `i` is a function of (seed, i) alone, and of its bucket where lengths vary. Keys and shapes:
`valid` bool [frames], `text_ids` int32 and `text_mask` bool [text_tokens], `anchor_ids` int32
[2 + max_spans], `anchor_alignment` int32 [frames], and mixture, target, residual as float32
[samples] or [frames, channels]. A cache with features adds `alignment` float16 [segments, width],
the teacher features of the target, and `alignment_offset` float32 [], the frames of the first
segment that lie before the example.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float16, Int32

from sam_audio_jax.data import energy, span_prompts, text
from sam_audio_jax.data.config import DataConfig, PromptConfig
from sam_audio_jax.data.length_buckets import Bucket
from sam_audio_jax.data.mix import Mixer, Mixture
from sam_audio_jax.data.shards import SIGNALS, Cache
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.prompts import collate_anchors

TELLING_OVERLAP = 0.7  # of activities; above it spans alone would not say which half is meant
BAD_TRIES = 20

Example = dict[str, np.ndarray]


@functools.cache
def _tokenizer(name: str):
    return functools.cache(lambda phrase, length: tokenizer_for(name)([phrase], length))


class Prompter:
    """Draws the text and the spans of an example."""

    def __init__(self, config: PromptConfig, sample_rate: int, hop: int):
        self.config, self.sample_rate, self.hop = config, sample_rate, hop
        self.frame_rate = sample_rate / hop

    def draw(
        self,
        texts: tuple[str, ...],
        target: Bool[np.ndarray, " frames"],
        residual: Bool[np.ndarray, " frames"],
        size: int,
        rng: np.random.Generator,
    ) -> Example:
        """Prompts for the first `size` frames; the activities say when either half sounds."""
        config, frames = self.config, len(target)
        target, residual = target[:size], residual[:size]
        marked = []
        if rng.random() < config.span_share:
            marked = self._spans(target, size, rng)
        telling = bool(marked) and energy.overlap(target, residual) < TELLING_OVERLAP
        silent = (telling or config.drop_any_text) and rng.random() < config.text_dropout
        phrase = "" if silent else text.choose(texts, config.caption_share, rng)
        ids, mask = _tokenizer(config.tokenizer)(phrase, config.text_tokens)
        anchor_ids, alignment = collate_anchors(
            [marked],
            [size],
            sample_rate=self.sample_rate,
            hop=self.hop,
            frames=frames,
            slots=config.max_spans,
        )
        return {
            "valid": np.arange(frames) < size,
            "text_ids": ids[0],
            "text_mask": mask[0],
            "anchor_ids": anchor_ids[0],
            "anchor_alignment": alignment[0],
        }

    def _spans(
        self, active: Bool[np.ndarray, " frames"], size: int, rng: np.random.Generator
    ) -> list[span_prompts.Span]:
        config = self.config
        found = span_prompts.positive(active, self.frame_rate)
        if rng.random() < config.negative_share:
            found += span_prompts.negative(active, self.frame_rate)
        elif len(found) > 1 and rng.random() < config.subset_share:
            kept = rng.choice(len(found), int(rng.integers(1, len(found))), replace=False)
            found = [found[place] for place in sorted(kept)]
        plus = [span for span in found if span[0] == "+"]
        minus = [span for span in found if span[0] == "-"]
        found = span_prompts.merged(plus, config.max_spans)
        found += minus[: config.max_spans - len(found)]
        if config.jitter_s and rng.random() < 0.5:
            found = span_prompts.jittered(found, config.jitter_s, size / self.frame_rate, rng)
        return sorted(found, key=lambda span: span[1])


def draw_size(short_share: float, frames: int, rng: np.random.Generator) -> int:
    """Real frames of an example: with probability `short_share` fewer than the `frames` at hand."""
    if rng.random() >= short_share:
        return frames
    return int(rng.integers(max(1, frames // 3), frames + 1))


class MixedExamples:
    """Examples with waves, mixed when asked for."""

    def __init__(self, config: DataConfig, mixer: Mixer, sample_rate: int, hop: int):
        self.config, self.mixer, self.hop = config, mixer, hop
        self.prompter = Prompter(config.prompts, sample_rate, hop)
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return 2**48

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.config.seed, index))
        drawn = self.mixer.draw(rng)
        frames = len(drawn.mixture) // self.hop
        size = draw_size(self.config.batches.short_share, frames, rng)
        return self._example(drawn, size, frames, rng)

    def fit(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, mixed at a length of the bucket and padded to its frames."""
        rng = np.random.default_rng((self.config.seed, index))
        size = bucket.size(bucket.frames, rng)
        drawn = self.mixer.with_length(size * self.hop).draw(rng)
        return self._example(drawn, size, bucket.frames, rng)

    def _example(self, drawn: Mixture, size: int, frames: int, rng: np.random.Generator) -> Example:
        example = {}
        for name in SIGNALS:
            example[name] = np.zeros(frames * self.hop, np.float32)
            example[name][: size * self.hop] = getattr(drawn, name)[: size * self.hop]
        active = np.zeros((2, frames), bool)
        for row, name in enumerate(("target", "residual")):
            found = energy.activity(getattr(drawn, name), self.sample_rate, self.hop)
            active[row, :size] = found[:size]
        return example | self.prompter.draw(drawn.target_texts, active[0], active[1], size, rng)


class CachedExamples:
    """Examples with latents: crops of the records of a cache, all of them once per round."""

    def __init__(self, config: DataConfig, sample_rate: int, hop: int, frames: int):
        self.config, self.frames, self.cache = config, frames, Cache(config.cache)
        held = self.cache.index
        if (held["sample_rate"], held["hop"]) != (sample_rate, hop):
            raise UserError(
                f"{config.cache} was made at {held['sample_rate']} Hz with hop {held['hop']}, "
                f"the codec has {sample_rate} Hz and hop {hop}"
            )
        self.prompter = Prompter(config.prompts, sample_rate, hop)
        self.segment = held["segment_s"] * sample_rate / hop  # frames; 0: no features

    def __len__(self) -> int:
        return 2**48

    def __getitem__(self, index: int) -> Example:
        draw = functools.partial(draw_size, self.config.batches.short_share)
        return self._example(index, self.frames, draw)

    def fit(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, cropped to a length of the bucket and padded to its frames."""
        return self._example(index, bucket.frames, bucket.size)

    def _example(
        self, index: int, frames: int, draw_size: Callable[[int, np.random.Generator], int]
    ) -> Example:
        rng = np.random.default_rng((self.config.seed, index))
        turn, place = divmod(index, len(self.cache))
        record = self.cache[int(_order(self.config.seed, turn, len(self.cache))[place])]
        for _ in range(BAD_TRIES):
            if record is not None:
                break
            record = self.cache[int(rng.integers(len(self.cache)))]
        if record is None:
            raise UserError(f"{self.config.cache}: {BAD_TRIES} records in a row cannot be read")
        swapped = bool(record.residual_texts) and rng.random() < self.config.prompts.swap_share
        one, other = ("residual", "target") if swapped else ("target", "residual")
        length = len(record.mixture)
        size = draw_size(min(frames, length), rng)
        start = self._start(getattr(record, f"{one}_active"), size, rng)
        example = {}
        sources = {"mixture": "mixture", "target": one, "residual": other}
        for name, source in sources.items():
            out = np.zeros((frames, record.mixture.shape[1]), np.float32)
            out[:size] = getattr(record, source)[start : start + size]
            example[name] = out
        if self.segment:
            example |= self._teacher_features(getattr(record, f"{one}_features"), start, frames)
        active = np.zeros((2, frames), bool)
        for row, name in enumerate((one, other)):
            active[row, :size] = getattr(record, f"{name}_active")[start : start + size]
        texts = record.residual_texts if swapped else record.target_texts
        return example | self.prompter.draw(texts, active[0], active[1], size, rng)

    def _teacher_features(
        self, segments: Float16[np.ndarray, "segments width"], start: int, frames: int
    ) -> Example:
        """The segments under and around the frames from `start` on; the last is repeated."""
        first = max(int(start / self.segment) - 1, 0)
        count = segments_around(frames, self.segment)
        places = np.minimum(np.arange(first, first + count), len(segments) - 1)
        offset = np.float32(start - first * self.segment)
        return {"teacher_features": segments[places], "teacher_features_offset": np.asarray(offset)}

    def _start(
        self, active: Bool[np.ndarray, " frames"], size: int, rng: np.random.Generator
    ) -> int:
        """Where a crop of `size` begins: anywhere that leaves enough of the target to ask for.

        Enough is the shortest sound that counts as one, or the most that any crop has of it.
        """
        heard = np.concatenate([[0], np.cumsum(active)])
        heard = heard[size:] - heard[:-size]
        enough = min(int(heard.max()), round(energy.MIN_S * self.prompter.frame_rate))
        places = np.flatnonzero(heard >= enough)
        return int(places[rng.integers(len(places))])


def segments_around(frames: int, segment: float) -> int:
    """Segments of `segment` frames that an example of so many frames is given."""
    return math.ceil(frames / segment) + 2


@functools.lru_cache(maxsize=4)
def _order(seed: int, turn: int, size: int) -> Int32[np.ndarray, " records"]:
    return np.random.default_rng((seed, turn, size)).permutation(size).astype(np.int32)
