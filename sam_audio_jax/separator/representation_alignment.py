"""Alignment of a hidden state of the transformer with the features of a frozen event model.

Paper: arXiv 2512.18099, pre-training only. What it leaves open is ours (docs/training.md,
"Alignment"). The head exists in training runs alone.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from sam_audio_jax.nn.linear import linear

Interpolation = Literal["repeat", "linear"]
SMALLEST_NORM = 1e-8  # a silent target's embedding may be zero: then its cosine is 0


class AlignmentHead(nnx.Module):
    """Maps a hidden state to the teacher's embedding space: three layers, SiLU between them."""

    def __init__(self, width: int, hidden: int, embedding: int, *, dtype: str, rngs: nnx.Rngs):
        self.first = linear(width, hidden, ("embed", "mlp"), dtype=dtype, bias=True, rngs=rngs)
        self.second = linear(hidden, hidden, ("mlp", "embed"), dtype=dtype, bias=True, rngs=rngs)
        self.third = linear(hidden, embedding, ("embed", "mlp"), dtype=dtype, bias=True, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch frames width"]
    ) -> Float[Array, "batch frames embedding"]:
        x = nnx.silu(self.first(x))
        return self.third(nnx.silu(self.second(x)))


def to_frames(
    segments: Float[Array, "batch segments embedding"],
    frames: int,
    frames_per_segment: float,
    offset: Float[Array, " batch"] | None = None,
    interpolation: Interpolation = "repeat",
) -> Float[Array, "batch frames embedding"]:
    """The embedding of each frame: that of its segment, or interpolated between their centres.

    Frames after the last segment get the last embedding. `offset` is the number of frames of the
    first segment before the first frame.
    """
    start = jnp.zeros(len(segments)) if offset is None else offset
    position = (start[:, None] + jnp.arange(frames)) / frames_per_segment  # in segments
    last = segments.shape[1] - 1

    def at(position: Float[Array, "batch frames"]) -> Float[Array, "batch frames embedding"]:
        number = jnp.clip(position.astype(jnp.int32), 0, last)
        return jnp.take_along_axis(segments, number[..., None], axis=1)

    if interpolation == "repeat":
        return at(position)
    centre = jnp.clip(position + 0.5 / frames_per_segment - 0.5, 0, last)
    weight = (centre % 1)[..., None]
    return (1 - weight) * at(centre) + weight * at(centre + 1)


def cosine(
    one: Float[Array, "*rows embedding"], other: Float[Array, "*rows embedding"]
) -> Float[Array, "*rows"]:
    """Cosine of the angle between vectors, in float32."""
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    norms = (_norm(one), _norm(other))
    return jnp.sum(one * other, axis=-1) / (norms[0] * norms[1])


def _norm(x: Float[Array, "*rows embedding"]) -> Float[Array, "*rows"]:
    """At least `SMALLEST_NORM`; its gradient is 0, not NaN, at zero."""
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1), SMALLEST_NORM**2))


def alignment_loss(
    prediction: Float[Array, "batch frames embedding"],
    target: Float[Array, "batch frames embedding"],
    valid: Bool[Array, "batch frames"],
) -> Float[Array, ""]:
    """Mean over the valid frames of the whole batch of `1 - cos`; the target gets no gradient."""
    distance = 1 - cosine(prediction, jax.lax.stop_gradient(target))
    return jnp.sum(distance * valid) / jnp.maximum(jnp.sum(valid), 1)
