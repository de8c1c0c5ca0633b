"""Prompts as arrays: span anchors on the frame grid, the bundle of conditions.

See docs/model.md, "Conditions" and "Batches and anchors".
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax.errors import UserError

ANCHOR_IDS = {"<null>": 0, "+": 1, "-": 2, "<pad>": 3}
NULL_SLOT, PAD_SLOT, FIRST_SLOT = 0, 1, 2  # places in a row of `anchor_ids`

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
    anchor_ids: Int[Array, "batch slots"] | None = None
    anchor_alignment: Int[Array, "batch frames"] | None = None  # slot of each frame
    valid: Bool[Array, "batch frames"] | None = None  # True = real frame; None = all are


def frame_count(samples: int, hop: int) -> int:
    """Latent frames that cover `samples`."""
    return -(-samples // hop)


def valid_frames(
    sizes: Sequence[int], frames: int | None = None
) -> Bool[np.ndarray, "batch frames"]:
    """True on the first `sizes[b]` of `frames` (the longest size unless told)."""
    return np.arange(frames or max(sizes))[None, :] < np.asarray(sizes)[:, None]


def frame_after(time_s: float, sample_rate: int, hop: int) -> int:
    """The first latent frame that does not begin before a time: both ends of a span."""
    return math.ceil(time_s * sample_rate / hop)


def collate_anchors(
    spans: Sequence[Sequence[Span] | None] | None,
    sizes: Sequence[int],
    *,
    sample_rate: int,
    hop: int,
    frames: int | None = None,
    slots: int | None = None,
) -> tuple[Int[np.ndarray, "batch slots"], Int[np.ndarray, "batch frames"]]:
    """Anchor ids `[b, 2 + K]` and the slot of every frame (docs/model.md, "Batches and anchors").

    `sizes` are the items' own frames; `frames` (default: the longest) and `slots` K (default: the
    most spans of an item) fix the shapes. Both ends of a span are rounded up to a frame; later
    spans overwrite earlier ones and, when they run past an item's end, its padding.
    """
    rows = [list(row or ()) for row in spans] if spans is not None else [[] for _ in sizes]
    if len(rows) != len(sizes):
        raise UserError(f"spans for {len(rows)} items were given with {len(sizes)} audios")
    most = max(len(row) for row in rows)
    if slots is not None and most > slots:
        raise UserError(f"{most} spans in one item, at most {slots} are allowed here")
    ids = np.full(
        (len(rows), 2 + (most if slots is None else slots)), ANCHOR_IDS["<pad>"], np.int32
    )
    ids[:, NULL_SLOT] = ANCHOR_IDS["<null>"]
    alignment = np.where(valid_frames(sizes, frames), NULL_SLOT, PAD_SLOT).astype(np.int32)
    for item, row in enumerate(rows):
        for number, (token, start_s, end_s) in enumerate(row):
            if token not in ("+", "-"):
                raise UserError(f"span token {token!r} is unknown: '+' or '-'")
            if not (0 <= start_s < math.inf and 0 <= end_s < math.inf):
                raise UserError(f"span {start_s}-{end_s} s must lie at or after 0 s")
            begin, end = (frame_after(t, sample_rate, hop) for t in (start_s, end_s))
            ids[item, FIRST_SLOT + number] = ANCHOR_IDS[token]
            alignment[item, begin:end] = FIRST_SLOT + number
    return ids, alignment
