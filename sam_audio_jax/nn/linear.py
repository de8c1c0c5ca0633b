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
    return contract(x, kernel, ((x.ndim - 1,), (0,)))


def contract(x: Array, y: Array, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    """The tensor product of `x` and `y` over these axes of each, in their type.

    Sums are float32 in both forms. XLA on a CPU widens 16-bit operands to float32 before it
    multiplies, unless the result is asked for in float32: then it uses the processor's own 16-bit
    products (AMX, AVX512-BF16), three to five times as fast as float32. Elsewhere the result stays
    in 16 bits, so that partial sums of a sharded axis travel in them.
    """

    def summed(x: Array, y: Array, result: Any = None) -> Array:
        return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=result)

    if x.dtype != y.dtype or x.dtype not in (jnp.bfloat16, jnp.float16):
        return jnp.tensordot(x, y, axes)
    return jax.lax.platform_dependent(
        x, y, cpu=lambda x, y: summed(x, y, jnp.float32).astype(x.dtype), default=summed
    )


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    to_x = contract(cotangent, kernel, ((x.ndim - 1,), (1,)))
    return to_x, contract(x, cotangent, (rows, rows))


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
