"""Items as arrays of one shape: waves, tokens, anchors, video features and noise, padded.

Upstream's own padding is that of a `Batch`; recordings by themselves are padded so that their
frames are those that they would have alone (docs/model.md, "Batches and anchors").
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax.codec.codec import Codec, pad_to_hop
from sam_audio_jax.encoders.tokenizer import pad_tokens
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.processor import Batch
from sam_audio_jax.separator.prompts import Span, batch_anchors, valid_frames

Tokenize = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]  # texts -> ids, mask

LEAST_TOKENS = 32  # texts are padded to this or a larger power of two


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Items that are solved together, as arrays of one shape; rows are batch times candidates."""

    wave: Float[Array, "batch samples"]
    valid: Bool[Array, "batch frames"]
    text_ids: Int[Array, "batch tokens"]
    text_mask: Bool[Array, "batch tokens"]
    anchors: Int[Array, "batch frames"]  # ids of `separator.prompts.ANCHOR_IDS`
    noise: Float[Array, "rows frames state"]  # the candidates of an item follow each other
    video: Float[Array, "batch frames video_width"] | None = None  # None: zeros, upstream's none
    mixture: Float[Array, "batch frames channels"] | None = None  # latents of `wave`, if known
    # Vectors of examples, and which rows have one; None: no row has.
    like: Float[Array, "batch text_width"] | None = None
    like_mask: Bool[Array, " batch"] | None = None
    message: Int[Array, "waves bits"] | None = None  # watermark of each decoded wave; None: clean

    @property
    def candidates(self) -> int:
        return self.noise.shape[0] // self.wave.shape[0]


def collate_items(
    items: Sequence[Item],
    noises: Sequence[Float[np.ndarray, "candidates frames state"]],
    group: Group,
    *,
    codec: Codec,
    tokenizer: Tokenize,
) -> Prompts:
    """Pads the group's items to its shape; rows that are left over repeat the last item.

    Each wave is reflected to whole frames and then continued with zeros, so that an item's own
    frames are those that it would have alone.
    """
    rows = [items[min(row, len(items) - 1)] for row in range(group.rows)]
    hop = codec.config.hop
    wave = np.zeros((group.rows, group.frames * hop), np.float32)
    for out, item in zip(wave, rows, strict=True):
        whole = pad_to_hop(item.wave, hop)
        out[: len(whole)] = whole
    sizes = [codec.config.frames(len(item.wave)) for item in rows]
    noise = np.concatenate([noises[min(row, len(items) - 1)] for row in range(group.rows)])
    prompts = _prompts(
        wave,
        sizes,
        [item.text for item in rows],
        _anchors([item.spans for item in rows], sizes, group.frames, codec),
        noise,
        stack_features([item.features for item in rows], group.frames),
        tokenizer,
    )
    return _with_examples(prompts, [item.like for item in rows])


def collate_batch(
    batch: Batch,
    features: Sequence[Float[np.ndarray, "_ video_width"] | None] | None,
    noise: Float[np.ndarray, "rows frames state"],
    *,
    shards: int,
    codec: Codec,
    tokenizer: Tokenize,
) -> Prompts:
    """A batch as the reference has it: the zeros after short items are reflected and encoded.

    Copies of the last item pad the rows to a multiple of `shards`.
    """
    count, candidates = len(batch.descriptions), len(noise) // len(batch.descriptions)
    rows = np.minimum(np.arange(-(-count // shards) * shards), count - 1)
    return _prompts(
        pad_to_hop(batch.audios[rows, 0], codec.config.hop),
        batch.sizes[rows].tolist(),
        [batch.descriptions[row] for row in rows],
        np.take_along_axis(batch.anchor_ids, batch.anchor_alignment, axis=1)[rows],
        noise.reshape(count, candidates, *noise.shape[1:])[rows].reshape(-1, *noise.shape[1:]),
        None if features is None else stack_features([features[row] for row in rows], batch.frames),
        tokenizer,
    )


def _prompts(
    wave: Float[np.ndarray, "batch samples"],
    sizes: Sequence[int],
    texts: list[str],
    anchors: Int[np.ndarray, "batch frames"],
    noise: Float[np.ndarray, "rows frames state"],
    video: Float[np.ndarray, "batch frames video_width"] | None,
    tokenizer: Tokenize,
) -> Prompts:
    """Tokens are padded to few sizes, which changes no number."""
    ids, mask = pad_tokens(*tokenizer(texts), least=LEAST_TOKENS)
    return Prompts(
        wave=jnp.asarray(wave),
        valid=jnp.asarray(valid_frames(sizes, noise.shape[1])),
        text_ids=ids,
        text_mask=mask,
        anchors=jnp.asarray(anchors),
        noise=jnp.asarray(noise),
        video=None if video is None else jnp.asarray(video),
    )


def _with_examples(
    prompts: Prompts, likes: Sequence[Float[np.ndarray, " text_width"] | None]
) -> Prompts:
    """The same prompts with the vectors of examples; unchanged if no row has one."""
    widths = {len(like) for like in likes if like is not None}
    if not widths:
        return prompts
    vectors = np.zeros((len(likes), *widths), np.float32)
    for row, like in zip(vectors, likes, strict=True):
        if like is not None:
            row[:] = like
    present = np.array([like is not None for like in likes])
    return dataclasses.replace(prompts, like=jnp.asarray(vectors), like_mask=jnp.asarray(present))


def with_spans(
    prompts: Prompts, spans: Sequence[Sequence[Span]], sizes: Sequence[int], codec: Codec
) -> Prompts:
    """The same prompts with other spans."""
    anchors = _anchors(spans, sizes, prompts.valid.shape[1], codec)
    return dataclasses.replace(prompts, anchors=jnp.asarray(anchors))


def _anchors(
    spans: Sequence[Sequence[Span]], sizes: Sequence[int], frames: int, codec: Codec
) -> Int[np.ndarray, "batch frames"]:
    rate, hop = codec.config.sample_rate, codec.config.hop
    return batch_anchors(spans, sizes, sample_rate=rate, hop=hop, frames=frames)


def stack_features(
    features: Sequence[Float[np.ndarray, "_ video_width"] | None], frames: int
) -> Float[np.ndarray, "batch frames video_width"] | None:
    """Padded with zeros, which are also what items without video have; None if none has any."""
    widths = {one.shape[1] for one in features if one is not None}
    if not widths:
        return None
    stacked = np.zeros((len(features), frames, *widths), np.float32)
    for row, one in zip(stacked, features, strict=True):
        if one is not None:
            row[: len(one)] = one
    return stacked
