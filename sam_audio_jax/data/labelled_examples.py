"""Examples of a latent cache and pseudo-labels, interleaved by a share.

Of the examples `0 .. i - 1` exactly `floor(i * share)` are labels (of pairs of neighbours, where a
pair is one mixture), so that each of the two lists is read in its own order, all of it once per
round, and a share of 0 leaves the cache's examples as they are without labels.
"""

import dataclasses
import math

from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.examples import ENDLESS, CachedExamples
from sam_audio_jax.data.labels import LabelCache
from sam_audio_jax.data.length_buckets import Bucket
from sam_audio_jax.data.prompter import Example
from sam_audio_jax.data.shards import Cache
from sam_audio_jax.errors import UserError


class LabelledExamples:
    """Examples of which a share is crops of labels; the others are crops of a cache's records."""

    def __init__(self, config: DataConfig, sample_rate: int, hop: int, frames: int):
        """Raises `UserError` for labels and a cache that do not fit each other."""
        self.config = config
        grid = (sample_rate, hop, frames)
        # A residual has no name and nothing is known to be absent: such prompts are the cache's.
        prompts = dataclasses.replace(config.prompts, absent_share=0.0, pair_share=0.0)
        labels = LabelCache(config.labels, config.seed)
        own = dataclasses.replace(config, prompts=prompts)
        self.labelled = CachedExamples(own, labels, *grid)
        self.cached = CachedExamples(config, Cache(config.cache), *grid) if config.cache else None
        self.group = 2 if config.prompts.pair_share else 1
        if self.cached is not None:
            self._fit(self.cached)

    def _fit(self, cached: CachedExamples) -> None:
        """Gives both the same keys. Raises `UserError` where they cannot have them."""
        folders = f"data.cache={self.config.cache} and data.labels.folder={self.labelled.folders}"
        if cached.segment:
            raise UserError(
                f"data.cache={self.config.cache} has the features of a teacher, and labels have "
                "none: make a cache without one (alignment.weight 0)"
            )
        widths = {cached.video_width, self.labelled.video_width} - {0}
        if len(widths) > 1:
            raise UserError(f"{folders} have video features of {sorted(widths)} numbers")
        cached.video_width = self.labelled.video_width = max(widths, default=0)
        channels = [one.cache.index["channels"] for one in (cached, self.labelled)]
        if channels[0] != channels[1]:
            raise UserError(f"{folders} have latents of {channels} channels")

    @property
    def folders(self) -> str:
        """The folders that the examples are from, for messages."""
        cached = "" if self.cached is None else f" and {self.cached.folders}"
        return f"{self.labelled.folders}{cached}"

    @property
    def record_frames(self) -> int:
        """Frames of the records of the cache; without one, of the longest label."""
        return (self.cached or self.labelled).record_frames

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        examples, number = self._source(index)
        return examples[number]

    def in_bucket(self, index: int, bucket: Bucket) -> Example:
        """Example `index`, cropped to a length of the bucket and padded to its frames."""
        examples, number = self._source(index)
        return examples.in_bucket(number, bucket)

    def _source(self, index: int) -> tuple[CachedExamples, int]:
        """The list that example `index` is from, and its number there."""
        if self.cached is None:
            return self.labelled, index
        unit, rest = divmod(index, self.group)
        before = math.floor(unit * self.config.labels.share)
        is_label = math.floor((unit + 1) * self.config.labels.share) > before
        number = before if is_label else unit - before
        return (self.labelled if is_label else self.cached), number * self.group + rest
