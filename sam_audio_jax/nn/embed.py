"""Time embeddings, the gated projection and dropout (docs/model.md, "Time")."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from sam_audio_jax import parallel
from sam_audio_jax.nn.linear import LECUN, Initializer, linear

MAX_PERIOD = 10_000.0


def sinusoid(time: Float[Array, " batch"], width: int) -> Float[Array, "batch width"]:
    """`[cos(t f), sin(t f)]`, all cosines first, float32; an odd width ends in a zero."""
    half = width // 2
    steps = np.arange(half, dtype=np.float32)
    frequency = np.exp(np.float32(-math.log(MAX_PERIOD)) * steps / np.float32(half))
    angle = time.astype(jnp.float32)[:, None] * frequency
    waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jnp.pad(waves, ((0, 0), (0, width % 2)))


def dropout(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """Zeros a `rate` of the elements and scales the rest; without a key it does nothing.

    The mask is drawn from 16 bits an element: the rate is right to 1/65536, at half the cost of
    drawing floats.
    """
    if key is None or rate == 0:
        return x
    bits = jax.random.bits(key, x.shape, jnp.uint16)
    return jnp.where(bits >= round(rate * 2**16), x / (1 - rate), jnp.zeros_like(x))


class GatedProjection(nnx.Module):
    """`down(dropout(silu(gate(x)) * up(x)))` without biases, for feed-forward and projections.

    Another activation must be a named function: two partials of one function are never equal, and
    each would compile its network again.
    """

    def __init__(
        self,
        size_in: int,
        hidden: int,
        size_out: int,
        *,
        dropout: float,
        dtype: str,
        activation: Callable[[Array], Array] = nnx.silu,
        out_init: Initializer = LECUN,
        rngs: nnx.Rngs,
    ):
        self.dropout, self.activation = dropout, activation
        self.gate = linear(size_in, hidden, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.up = linear(size_in, hidden, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.down = linear(
            hidden, size_out, ("mlp", "embed"), dtype=dtype, init=out_init, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "*rows size_in"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "*rows size_out"]:
        hidden = dropout(self.activation(self.gate(x)) * self.up(x), self.dropout, key)
        if hidden.ndim == 3:
            hidden = parallel.constrain(hidden, "batch", "frames", "mlp")
        return self.down(hidden)
