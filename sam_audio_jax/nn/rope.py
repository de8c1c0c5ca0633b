"""Rotary positions (docs/model.md, "Rotary positions").

The reference rotates neighbours `(2i, 2i+1)` of a head; here element `i` is paired with
`i + head_dim/2`, so that both halves are contiguous. Attention scores do not change when queries,
keys and the weights of their norms are reordered alike, which `convert/` does.
"""

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def base(max_positions: int) -> float:
    """The base theta of the frequencies, in the separator and in PEAV."""
    return max(10_000.0, 2.0 * max_positions)


@overload
def angles(  # pyright: ignore[reportOverlappingOverload]
    frames: int, head_dim: int, theta: float
) -> Float[np.ndarray, "frames pairs"]: ...
@overload
def angles(frames: Any, head_dim: int, theta: float) -> Float[Array, "frames pairs"]: ...
def angles(frames: Any, head_dim: int, theta: float) -> Any:
    """Position times frequency `theta^(-2i/head_dim)`, both float32, computed while tracing.

    Rounded where the reference rounds: at 400 s one bit of a frequency is 1e-4 of the result. Where
    the number of frames is left open (docs/export.md) it is no int, and the angles are computed
    when the program runs.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    power = np.power(np.float64(theta), exponent.astype(np.float64))
    frequency = np.float32(1) / power.astype(np.float32)
    numbers: Any = np if isinstance(frames, int) else jnp
    return numbers.outer(numbers.arange(frames, dtype=np.float32), frequency)


def rotate(
    x: Float[Array, "batch frames heads head_dim"],
    angle: Float[np.ndarray, "frames pairs"] | Float[Array, "frames pairs"],
) -> Float[Array, "batch frames heads head_dim"]:
    """Rotates each pair `(x[i], x[i + head_dim/2])` by its angle, in float32.

    NumPy angles become constants of the program; others can differ from layer to layer of a scan.
    """
    numbers = jnp if isinstance(angle, jax.Array) else np
    cos, sin = (jnp.asarray(f(angle))[:, None, :] for f in (numbers.cos, numbers.sin))
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)
