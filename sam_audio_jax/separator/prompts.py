"""Prompts as arrays: span anchors on the frame grid, and the conditions of the velocity.

See docs/model.md, "Conditions" and "Batches and anchors".
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax.errors import UserError

ANCHOR_IDS = {"<null>": 0, "+": 1, "-": 2, "<pad>": 3}

Span = tuple[str, float, float]  # "+" or "-", start and end in seconds


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the velocity depends on besides state and time; None = that prompt does not exist.

    `video=None` skips the video branch, which is not what upstream does for clips without video: it
    feeds zeros, and the branch then adds its normalised bias. Callers who want upstream's numbers
    (every released checkpoint was trained so) pass zeros.
    """

    mixture: Float[Array, "batch frames channels"]  # one copy z; the model reads [z, z]
    text: Float[Array, "batch tokens text_width"] | None = None
    text_mask: Bool[Array, "batch tokens"] | None = None  # True = real token; None = all are
    video: Float[Array, "batch frames video_width"] | None = None
    anchors: Int[Array, "batch frames"] | None = None  # ids of `ANCHOR_IDS`
    valid: Bool[Array, "batch frames"] | None = None  # True = real frame; None = all are

    @classmethod
    def build(
        cls,
        *,
        mixture: Float[Array, "batch frames channels"],
        text: Float[Array, "batch tokens text_width"],
        text_mask: Bool[Array, "batch tokens"],
        anchors: Int[Array, "batch frames"],
        video: Float[Array, "batch frames video_width"] | None,
        video_width: int,
        valid: Bool[Array, "batch frames"] | None = None,
    ) -> "Conditions":
        """The conditions of training and inference, in which no video is zeros, not a skip."""
        if video is None:
            video = jnp.zeros((*mixture.shape[:2], video_width), mixture.dtype)
        return cls(
            mixture=mixture,
            text=text,
            text_mask=text_mask,
            video=video,
            anchors=anchors,
            valid=valid,
        )


def with_example(
    text: Float[Array, "batch tokens text_width"],
    text_mask: Bool[Array, "batch tokens"],
    vectors: Float[Array, "batch text_width"],
    present: Bool[Array, " batch"],
) -> tuple[Float[Array, "batch more_tokens text_width"], Bool[Array, "batch more_tokens"]]:
    """The texts with one token more: the vector of an example, where there is one.

    The memory has no order, so a text of one word and an example with its vector are the same.
    """
    text = jnp.concatenate([text, vectors[:, None].astype(text.dtype)], axis=1)
    return text, jnp.concatenate([text_mask, present[:, None]], axis=1)


def valid_frames(
    sizes: Sequence[int], frames: int | None = None
) -> Bool[np.ndarray, "batch frames"]:
    """True on the first `sizes[b]` of `frames` (default: the longest size)."""
    return np.arange(frames or max(sizes))[None, :] < np.asarray(sizes)[:, None]


def frame_after(time_s: float, sample_rate: int, hop: int) -> int:
    """The first latent frame that does not begin before a time: both ends of a span."""
    return math.ceil(time_s * sample_rate / hop)


def frame_anchors(
    spans: Sequence[Span],
    start: int,
    stop: int,
    *,
    sample_rate: int,
    hop: int,
    size: int | None = None,
) -> Int[np.ndarray, " frames"]:
    """The anchor of each latent frame from `start` to `stop` of an item, as ids of `ANCHOR_IDS`.

    Both ends of a span are rounded up to a frame. Later spans overwrite earlier ones and, as in the
    reference, the padding: frames at or after `size`, the item's own number of frames. Raises
    `UserError` for an unknown token and for times that are negative or not finite.
    """
    padded = np.arange(start, stop) >= (stop if size is None else size)
    ids = np.where(padded, ANCHOR_IDS["<pad>"], ANCHOR_IDS["<null>"]).astype(np.int32)
    for token, begin, end in frame_spans(spans, sample_rate=sample_rate, hop=hop):
        ids[max(0, begin - start) : max(0, end - start)] = ANCHOR_IDS[token]
    return ids


def batch_anchors(
    spans: Sequence[Sequence[Span]],
    sizes: Sequence[int],
    *,
    sample_rate: int,
    hop: int,
    frames: int | None = None,
) -> Int[np.ndarray, "batch frames"]:
    """`frame_anchors` of items with `sizes` frames of their own, padded to `frames`.

    Without `frames` they are padded to the longest.
    """
    stop = frames or max(sizes)
    return np.stack(
        [
            frame_anchors(row, 0, stop, sample_rate=sample_rate, hop=hop, size=size)
            for row, size in zip(spans, sizes, strict=True)
        ]
    )


def frame_spans(
    spans: Sequence[Span], *, sample_rate: int, hop: int
) -> Iterator[tuple[str, int, int]]:
    """`(token, first frame, frame after the last)` of each span; raises as `frame_anchors`."""
    for token, start_s, end_s in spans:
        if token not in ("+", "-"):
            raise UserError(f"span token {token!r} is unknown: '+' or '-'")
        if not (0 <= start_s < math.inf and 0 <= end_s < math.inf):
            raise UserError(f"span {start_s}-{end_s} s must be at or after 0 s")
        begin, end = (frame_after(t, sample_rate, hop) for t in (start_s, end_s))
        yield token, begin, end
