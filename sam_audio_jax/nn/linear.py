"""Linear layers, with a gradient of their kernels that XLA computes fast on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel

Initializer = jax.nn.initializers.Initializer
LECUN = jax.nn.initializers.lecun_normal()


@jax.custom_vjp
def product(
    x: Float[Array, "*rows size_in"], kernel: Float[Array, "size_in size_out"]
) -> Float[Array, "*rows size_out"]:
    """`x @ kernel`.

    Its kernel's gradient is `x^T dy`. Differentiation would write the transpose of `dy^T x`, for
    which XLA on a CPU evaluates the elementwise chain behind `dy` in transposed order: a quarter of
    a training step.
    """
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    return cotangent @ kernel.T, jnp.tensordot(x, cotangent, (rows, rows))


product.defvjp(_forward, _backward)


def _dot_general(x: Array, kernel: Array, *contracted: Any, **unused: Any) -> Array:
    del contracted, unused  # nnx.Linear always contracts the last axis with the first
    return product(x, kernel)


def linear(
    size_in: int,
    size_out: int,
    axes: tuple[parallel.LogicalAxis, parallel.LogicalAxis],
    *,
    dtype: str,
    rngs: nnx.Rngs,
    bias: bool = False,
    init: Initializer = LECUN,
) -> nnx.Linear:
    """An `nnx.Linear` that multiplies by `product`; `axes` are the logical axes of its kernel."""
    return nnx.Linear(
        size_in,
        size_out,
        use_bias=bias,
        dtype=dtype,
        kernel_init=init,
        kernel_metadata=parallel.axes(*axes),
        bias_metadata=parallel.axes(axes[1]),
        dot_general=_dot_general,
        rngs=rngs,
    )
