"""Which frames of a video ImageBind sees, and in which crops.

Arithmetic: docs/scoring.md, "ImageBind"; that of the data loader of the reference
(github.com/facebookresearch/ImageBind, `imagebind/data.py`).
"""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

CROPS = 3  # along the longer side
# Mean and deviation of pixels in 0..1, of red, green and blue, as in CLIP (arXiv 2103.00020).
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def clip_starts(duration_s: float, clip_s: float, clips: int) -> list[Fraction]:
    """Starts in seconds of clips that are spread evenly over a recording, 0 in a short one.

    They are exact fractions of the binary value of `duration_s`, as in the reference: the index of
    a sample or frame is rounded once, from them.
    """
    step = Fraction(max(duration_s - clip_s, 0)) / max(clips - 1, 1)
    return [number * step for number in range(clips)]


def frame_indices(
    frames: int, duration_s: float, *, clip_s: float, clips: int, per_clip: int
) -> Int[np.ndarray, "clips per_clip"]:
    """Indices of the frames of each clip: the first and the last in it, and others between them.

    `frames` are spread over `duration_s`. Of a clip in which no frame begins, the one before it is
    taken (our choice; the reference fails).
    """
    rate, chosen = frames / duration_s, []
    for start in clip_starts(duration_s, clip_s, clips):
        first = min(math.ceil(rate * start), frames - 1)
        end = max(min(math.ceil(rate * (start + Fraction(clip_s))), frames), first + 1)
        chosen.append(first + np.linspace(0, end - first - 1, per_clip).astype(np.int64))
    return np.stack(chosen)


def crops(
    pictures: Num[np.ndarray, "pictures y x 3"], size: int
) -> Float[Array, "pictures crops size size 3"]:
    """Normalised square crops at the start, the middle and the end of the longer side.

    Pictures of values in 0..255 are first scaled, without antialiasing, so that their shorter side
    has `size` pixels.
    """
    return _crops(jnp.asarray(pictures), size=size)


@functools.partial(jax.jit, static_argnames="size")
def _crops(pictures: Num[Array, "pictures y x 3"], *, size: int) -> Array:
    height, width = pictures.shape[1:3]
    short, long = sorted((height, width))
    long_size = math.floor(long / short * size)
    upright = height > width
    shape = (long_size, size) if upright else (size, long_size)
    x = pictures.astype(jnp.float32) / 255
    x = jax.image.resize(x, (len(x), *shape, 3), "bilinear", antialias=False)
    x = (x - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    starts = (0, math.ceil((long_size - size) / 2), long_size - size)
    axis = 1 if upright else 2
    cut = [jax.lax.slice_in_dim(x, start, start + size, axis=axis) for start in starts]
    return jnp.stack(cut, axis=1)
