"""One fixed noise by whose latents a codec is recognised: that of other weights has other ones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

SIZE = 16  # latents that are kept
TOLERANCE = 0.05  # between those latents then and now


def probe_noise(rows: int, samples: int) -> Float32[np.ndarray, "rows samples"]:
    """The noise; more rows and, in the first row, more samples begin with the same ones."""
    noise = 0.1 * np.random.default_rng(0).normal(size=(rows, samples))
    return noise.astype(np.float32)


def probe_of(latents: Float[np.ndarray, "batch frames channels"]) -> tuple[float, ...]:
    """What is kept of the latents of the noise."""
    return tuple(float(value) for value in np.asarray(latents[0]).ravel()[:SIZE])


def is_same_codec(then: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two probes are of one codec, to the rounding of stored weights."""
    return len(then) == len(now) and np.allclose(then, now, rtol=TOLERANCE, atol=TOLERANCE)
