"""The reference's way in: a processor makes a batch, `SAMAudio.separate` takes it.

processor = SAMAudioProcessor.from_pretrained("tiny")
batch = processor(descriptions=["dog barking"], audios=["street.wav"], anchors=[[["+", 1.0, 2.5]]])
result = model.separate(batch)  # result.target[0], result.residual[0], result.noise

Padding, masks and anchors are the reference's (docs/model.md, "Batches and anchors"), and so are
the results with one exception that `SAMAudio.separate` names: the watermark.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sam_audio_jax import audio
from sam_audio_jax.audio import Level
from sam_audio_jax.codec.codec import frame_count
from sam_audio_jax.convert.load import codec_grid
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.prompt_notes import span_notes
from sam_audio_jax.infer.video_prompts import Clip, make_clip
from sam_audio_jax.scorers.scorer import PromptView
from sam_audio_jax.separator.prompts import ANCHOR_IDS, Span, frame_spans, valid_frames
from sam_audio_jax.video.masks import mask_videos

NULL_SLOT, PAD_SLOT, FIRST_SLOT = 0, 1, 2  # columns of `anchor_ids`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Recordings with their prompts, padded to the longest with zeros."""

    audios: Float[np.ndarray, "batch 1 samples"]  # mono, at the codec's rate
    wav_sizes: Int[np.ndarray, " batch"]  # samples of each recording
    sizes: Int[np.ndarray, " batch"]  # latent frames of each
    audio_pad_mask: Bool[np.ndarray, "batch frames"]  # True = a recording's own frame
    descriptions: list[str]
    anchors: list[tuple[Span, ...]] | None  # None: no argument, spans may be predicted
    anchor_ids: Int[np.ndarray, "batch slots"]
    anchor_alignment: Int[np.ndarray, "batch frames"]
    masked_videos: list[Clip | None] | None = None
    video_features: list[Float[np.ndarray, "frames video_width"] | None] | None = None  # instead
    audio_sampling_rate: int
    audio_hop_length: int  # samples in a latent frame

    def __len__(self) -> int:
        return len(self.descriptions)

    def check_grid(self, sample_rate: int, hop: int) -> None:
        """Raises UserError if the batch has other frames than the model."""
        if (self.audio_sampling_rate, self.audio_hop_length) != (sample_rate, hop):
            raise UserError(
                f"the batch has frames of {self.audio_hop_length} samples at "
                f"{self.audio_sampling_rate} Hz, the model of {hop} at {sample_rate} Hz"
            )

    def at_level(self, level_db: float | None) -> tuple["Batch", list[Level]]:
        """Returns the batch at the usual level of a model, and what was done to it."""
        rows = zip(self.audios[:, 0], self.wav_sizes, strict=True)
        waves = [row[:size] for row, size in rows]
        levels = [audio.measure_level(w, self.audio_sampling_rate, level_db) for w in waves]
        levelled = np.zeros_like(self.audios)
        for row, wave, level in zip(levelled, waves, levels, strict=True):
            row[0, : len(wave)] = level.apply(wave)
        return dataclasses.replace(self, audios=levelled), levels

    @property
    def frames(self) -> int:
        """Latent frames of the longest item."""
        return self.audio_pad_mask.shape[1]

    @property
    def prompt_views(self) -> list[PromptView]:
        """Returns the prompts of each item."""
        spans = self.anchors or [()] * len(self)
        clips = self.masked_videos or [None] * len(self)
        rows = zip(self.descriptions, spans, clips, strict=True)
        return [
            PromptView(text=text, spans=marked, video=None if clip is None else clip.at)
            for text, marked, clip in rows
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAMAudioProcessor:
    """Reads recordings and prompts onto the grid of a model's codec; needs no weights."""

    audio_sampling_rate: int = 48_000
    audio_hop_length: int = 1_920  # samples in a latent frame

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike) -> "SAMAudioProcessor":
        """The grid of any checkpoint that `SAMAudio.from_pretrained` opens."""
        sample_rate, hop = codec_grid(inputs.check_checkpoint(name))
        return cls(audio_sampling_rate=sample_rate, audio_hop_length=hop)

    def wav_to_feature_idx(self, wav_idx: int) -> int:
        """Latent frames that cover so many samples."""
        return frame_count(wav_idx, self.audio_hop_length)

    def feature_to_wav_idx(self, feature_idx: int) -> int:
        """Samples of so many latent frames."""
        return feature_idx * self.audio_hop_length

    def __call__(
        self,
        descriptions: Sequence[Any],
        audios: Sequence[Any],
        anchors: Sequence[Sequence[Sequence] | None] | None = None,
        masked_videos: Sequence[Any] | None = None,
    ) -> Batch:
        """A batch of `audios`: paths, or arrays `[channels, samples]` at `audio_sampling_rate`.

        `anchors`: [("+" or "-", start_s, end_s)] of each item; a span may run past the item's end,
        as in the reference; a Python warning names one that marks no frame. `masked_videos`: paths,
        or uint8 arrays `[frames, 3, height, width]` that span the recording, or None where an item
        has none.
        UserError: lists of unequal lengths, and whatever cannot be read.
        """
        counts = {"audios": audios, "anchors": anchors, "masked_videos": masked_videos}
        for name, values in counts.items():
            if values is not None and len(values) != len(descriptions):
                raise UserError(f"{len(descriptions)} descriptions with {len(values)} {name}")
        if not len(descriptions):
            raise UserError("a batch needs at least one item")
        for number, text in enumerate(descriptions):
            if not isinstance(text, str):
                raise UserError(f"description {number} must be a string, not {shown(text)}")
            inputs.check_text(text, f"item {number}")
        waves = [self._read(source, f"audio {number}") for number, source in enumerate(audios)]
        wav_sizes = [len(wave) for wave in waves]
        stacked = np.zeros((len(waves), 1, max(wav_sizes)), np.float32)
        for row, wave in zip(stacked, waves, strict=True):
            row[0, : len(wave)] = wave
        sizes = [frame_count(size, self.audio_hop_length) for size in wav_sizes]
        spans = None
        if anchors is not None:
            rows = [() if row is None else row for row in anchors]
            spans = [inputs.parse_spans(row, f"item {i}") for i, row in enumerate(rows)]
            for number, (row, size) in enumerate(zip(spans, sizes, strict=True)):
                grid = self.audio_sampling_rate, self.audio_hop_length
                notes = span_notes(row, size, *grid)
                inputs.warn([f"item {number}: {note}" for note in notes])
        ids, alignment = anchor_slots(
            spans, sizes, sample_rate=self.audio_sampling_rate, hop=self.audio_hop_length
        )
        clips = None
        if masked_videos is not None:
            clips = [make_clip(clip, name=f"item {i}") for i, clip in enumerate(masked_videos)]
        return Batch(
            audios=stacked,
            wav_sizes=np.array(wav_sizes),
            sizes=np.array(sizes),
            audio_pad_mask=valid_frames(sizes),
            descriptions=list(descriptions),
            anchors=spans,
            anchor_ids=ids,
            anchor_alignment=alignment,
            masked_videos=clips,
            audio_sampling_rate=self.audio_sampling_rate,
            audio_hop_length=self.audio_hop_length,
        )

    def mask_videos(
        self, videos: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The reference's helper: what the mask selects becomes black (see `video.masks`)."""
        return mask_videos(videos, masks)

    def _read(self, source: Any, name: str) -> Float[np.ndarray, " samples"]:
        recording = inputs.read(source, self.audio_sampling_rate, name)
        mono, _, recording = inputs.to_mono(recording, name)
        inputs.warn(recording.notes)
        return audio.resample(mono, recording.sample_rate, self.audio_sampling_rate)


def anchor_slots(
    spans: Sequence[Sequence[Span] | None] | None,
    sizes: Sequence[int],
    *,
    sample_rate: int,
    hop: int,
    frames: int | None = None,
) -> tuple[Int[np.ndarray, "batch slots"], Int[np.ndarray, "batch frames"]]:
    """The reference's form of anchors: ids of slots `[b, 2 + K]`, and the slot of every frame.

    `sizes` are the items' own frames, `frames` (default: the longest) the padded length, K the most
    spans of an item. Slot 0 is the null anchor, slot 1 padding. `ids[b, alignment[b, n]]` is
    `separator.prompts.frame_anchors`, which is all that the model looks at.
    """
    rows = [list(row or ()) for row in spans] if spans is not None else [[] for _ in sizes]
    if len(rows) != len(sizes):
        raise UserError(f"spans for {len(rows)} items were given with {len(sizes)} audios")
    slots = FIRST_SLOT + max(len(row) for row in rows)
    ids = np.full((len(rows), slots), ANCHOR_IDS["<pad>"], np.int32)
    ids[:, NULL_SLOT] = ANCHOR_IDS["<null>"]
    alignment = np.where(valid_frames(sizes, frames), NULL_SLOT, PAD_SLOT).astype(np.int32)
    for item, row in enumerate(rows):
        for slot, (token, begin, end) in enumerate(
            frame_spans(row, sample_rate=sample_rate, hop=hop), FIRST_SLOT
        ):
            ids[item, slot] = ANCHOR_IDS[token]
            alignment[item, begin:end] = slot
    return ids, alignment
