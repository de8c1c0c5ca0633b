"""Multi-diffusion: windows of a long recording that share one trajectory.

See docs/training.md, "Long recordings".

At every call of the velocity each window is evaluated on its own, as if it were a recording of that
length, and the results are merged with triangular weights. These are pure functions of arrays, for
infer/long_audio.py and infer/stream_windows.py.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sam_audio_jax.errors import UserError
from sam_audio_jax.separator import flow

WindowVelocity = Callable[[Array, Array], Array]  # (states of some windows, their starts) -> dx/dt


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a recording, and the weights of their frames in the merged velocity."""

    starts: Int[np.ndarray, " windows"]
    weights: Float[np.ndarray, "windows window"]  # those of one frame of the recording add up to 1


def check_overlap(window: int, overlap: int, *, most: int) -> None:
    """Raises `UserError` unless windows of `window` frames may overlap by `overlap` frames."""
    if window < 1 or not 0 <= overlap <= most:
        raise UserError(
            f"an overlap of {overlap} frames does not go with windows of {window} frames; "
            f"allowed are 0 to {most}"
        )


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """The first frame of every window.

    Windows follow each other at `window - overlap`; the last one is moved back to end with the
    recording, so that no window has padding, which would change the patcher's norm (docs/model.md,
    "Patcher"). It overlaps its neighbour by more than the others. Raises `UserError` for an overlap
    that is not less than the window, and for fewer frames than a window.
    """
    check_overlap(window, overlap, most=window - 1)
    if frames < window:
        raise UserError(f"{frames} frames are fewer than a window of {window}")
    return [*range(0, frames - window, window - overlap), frames - window]


def lay_windows(frames: int, window: int, overlap: int) -> Windows:
    """Windows over `frames` with normalised triangular weights; a lone window has weight 1."""
    starts = window_starts(frames, window, overlap)
    up = np.arange(1, window + 1, dtype=np.float64)
    triangle = np.minimum(up, up[::-1])
    total = np.zeros(frames)
    for start in starts:
        total[start : start + window] += triangle
    weights = np.stack([triangle / total[start : start + window] for start in starts])
    return Windows(np.asarray(starts, np.int32), weights.astype(np.float32))


def cut(
    whole: Float[Array, "frames channels"] | Int[Array, " frames"],
    starts: Int[Array, " batch"],
    window: int,
) -> Array:
    """`[batch, window, ...]`: the windows that begin at `starts`."""
    take = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=window, axis=0)
    return jax.vmap(take, in_axes=(None, 0))(whole, starts)


def merged_velocity(
    velocity: WindowVelocity,
    x: Float[Array, "frames channels"],
    starts: Int[Array, "capacity batch"],
    weights: Float[Array, "capacity batch window"],
    batches: Int[Array, ""],
) -> Float[Array, "frames channels"]:
    """The windows' velocities at state `x`, each on its own, merged with their weights.

    They are evaluated in batches, one after the other, so that memory does not grow with their
    number: the first `batches` rows of `starts`, the others are padding. Frames in no window get 0.
    """
    window = weights.shape[-1]

    def add(total: Array, piece_and_start: tuple[Array, Array]) -> tuple[Array, None]:
        piece, start = piece_and_start
        here = jax.lax.dynamic_slice_in_dim(total, start, window)
        return jax.lax.dynamic_update_slice_in_dim(total, here + piece, start, 0), None

    def add_batch(number: Array, total: Array) -> Array:
        begin = starts[number]
        pieces = velocity(cut(x, begin, window), begin) * weights[number][..., None]
        # One after the other: a scatter would add in an order that an accelerator may change.
        return jax.lax.scan(add, total, (pieces, begin))[0]

    return jax.lax.fori_loop(0, batches, add_batch, jnp.zeros_like(x))


def sample_after(
    velocity: flow.Velocity,
    noise: Float[Array, "batch frames channels"],
    past: Float[Array, "steps calls batch frames channels"],
    overlap_weight: Float[Array, " frames"],
    sampler: flow.SamplerConfig,
) -> tuple[
    Float[Array, "batch frames channels"], Float[Array, "steps calls batch frames channels"]
]:
    """x(1) of a window that follows another one, and the velocities of its trajectory.

    One-sided multi-diffusion, for streams: at every call the window's velocity is merged with that
    of the window before it, `past`, which has the weight `overlap_weight` in each frame. Where it
    is 1 the window follows the trajectory of the earlier one exactly, where it is 0 its own.
    """
    weight = overlap_weight[:, None]

    def body(
        state: tuple[Array, flow.Slopes], number_and_past: tuple[Array, Array]
    ) -> tuple[tuple[Array, flow.Slopes], Array]:
        number, before = number_and_past
        slopes: list[Array] = []

        def merged(x: Array, time: Array) -> Array:
            slope = weight * before[len(slopes)] + (1 - weight) * velocity(x, time)
            slopes.append(slope)
            return slope

        x, earlier = state
        return flow.step(merged, x, number, sampler, earlier), jnp.stack(slopes)

    numbers = jnp.arange(sampler.steps, dtype=jnp.float32)
    x = noise.astype(jnp.float32)
    start = (x, flow.no_slopes(x, sampler))
    (x, _), velocities = jax.lax.scan(body, start, (numbers, past))
    return x, velocities
