"""Networks are recognised by what they give for a fixed input; of a codec it is this noise."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

SIZE = 16  # numbers that are kept
TOLERANCE = 0.05  # between those numbers then and now


def probe_noise(rows: int, samples: int) -> Float32[np.ndarray, "rows samples"]:
    """The noise; more rows and, in the first row, more samples begin with the same ones."""
    noise = 0.1 * np.random.default_rng(0).normal(size=(rows, samples))
    return noise.astype(np.float32)


def probe_of(latents: Float[np.ndarray, "batch frames channels"]) -> tuple[float, ...]:
    """What is kept of what a network gives for its fixed input, as the latents of the noise."""
    return tuple(float(value) for value in np.asarray(latents[0]).ravel()[:SIZE])


def is_same_network(then: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two probes are of one network, to the rounding of stored weights."""
    return len(then) == len(now) and np.allclose(then, now, rtol=TOLERANCE, atol=TOLERANCE)
