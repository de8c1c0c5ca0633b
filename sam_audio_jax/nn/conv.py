"""One-dimensional convolutions and the Snake activation of the codec.

See docs/codec.md, "Convolutions".

Signals are channels last. Every kernel is stored as `(window, in, out)`: the weight norm of a
transposed one is over `(window, out)` for each input channel, that of the others over
`(window, in)` for each output channel.
"""

import functools
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel

Signal = Float[Array, "batch samples channels"]
Output = Float[Array, "batch samples_out channels_out"]
KERNEL_AXES = parallel.axes("window", "channels", "channels")
CHANNEL_AXES = parallel.axes("channels")
T = TypeVar("T", bound=Any)  # an array of JAX or NumPy


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> Array:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the reference's default for every kernel and bias."""
    bound = fan_in**-0.5
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def convolve(
    x: Signal,
    kernel: Float[Array, "window in out"],
    *,
    stride: int = 1,
    dilation: int = 1,
    pad: tuple[int, int] = (0, 0),
) -> Output:
    """Cross-correlation with zeros on both sides."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [pad],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


def upsample(x: Signal, kernel: Float[Array, "window in out"], stride: int) -> Output:
    """Transposed convolution of a window of two strides, uncropped: `samples * stride + stride`."""
    return upsample_by_matrix(x, upsampling_matrix(kernel, stride), stride)


def upsampling_matrix(kernel: T, stride: int) -> T:
    """The `(2 in, stride out)` matrix of an upsampling by a `(window, in, out)` kernel.

    Each stride of output depends on two neighbouring inputs, one through each half of the kernel:
    one matrix product does what a convolution over zero-stuffed inputs would, faster on every
    platform. Works on arrays of NumPy, too.
    """
    window, inputs, outputs = kernel.shape
    if window != 2 * stride:
        raise ValueError(f"a kernel of {window} does not span two strides of {stride}")
    halves = kernel.reshape(2, stride, inputs, outputs)
    return halves.transpose(0, 2, 1, 3).reshape(2 * inputs, stride * outputs)


def upsample_by_matrix(
    x: Signal, matrix: Float[Array, "two_inputs stride_outputs"], stride: int
) -> Output:
    """`upsample` with a matrix of `upsampling_matrix`."""
    batch, length, inputs = x.shape
    now, before = (jnp.pad(x, ((0, 0), side, (0, 0))) for side in ((0, 1), (1, 0)))
    pair = jnp.concatenate([now, before], axis=-1).reshape(-1, 2 * inputs)
    return (pair @ matrix).reshape(batch, (length + 1) * stride, -1)


class Conv1d(nnx.Module):
    """Plain convolution with bias (the watermark's layers)."""

    def __init__(self, inputs: int, outputs: int, window: int, *, rngs: nnx.Rngs):
        init = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, (window, inputs, outputs))
        self.kernel = nnx.Param(0.02 * init, **KERNEL_AXES)
        self.bias = nnx.Param(jnp.zeros(outputs), **CHANNEL_AXES)

    def __call__(self, x: Signal, *, stride: int = 1, pad: tuple[int, int] = (0, 0)) -> Output:
        return convolve(x, self.kernel[...], stride=stride, pad=pad) + self.bias[...]


class PlainConv1d(nnx.Module):
    """Like `WeightNormConv1d`, but the kernel itself is stored and an odd padding is rounded up."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dilation = stride, dilation
        kernel = uniform(rngs, (window, inputs, outputs), inputs * window)
        self.kernel = nnx.Param(kernel, **KERNEL_AXES)
        self.bias = nnx.Param(jnp.zeros(outputs), **CHANNEL_AXES)

    def __call__(self, x: Signal) -> Output:
        kernel = self.kernel[...]
        pad = ((len(kernel) - self.stride) * self.dilation + 1) // 2
        y = convolve(x, kernel, stride=self.stride, dilation=self.dilation, pad=(pad, pad))
        return y + self.bias[...]


class WeightNormConv1d(nnx.Module):
    """`W = scale * direction / |direction|`, the norm over all but the output channel, no epsilon.

    The padding on each side is `((window - stride) * dilation) // 2`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        zero_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dilation = stride, dilation
        fan_in = inputs * window
        direction = uniform(rngs, (window, inputs, outputs), fan_in)
        self.direction = nnx.Param(direction, **KERNEL_AXES)
        self.scale = nnx.Param(jnp.linalg.norm(direction, axis=(0, 1)), **CHANNEL_AXES)
        bias = jnp.zeros(outputs) if zero_bias else uniform(rngs, (outputs,), fan_in)
        self.bias = nnx.Param(bias, **CHANNEL_AXES)

    def kernel(self) -> Float[Array, "window in out"]:
        direction = self.direction[...]
        return direction * (self.scale[...] * norm_over(direction, (0, 1)))

    def __call__(self, x: Signal) -> Output:
        pad = (self.direction.shape[0] - self.stride) * self.dilation // 2
        y = convolve(x, self.kernel(), stride=self.stride, dilation=self.dilation, pad=(pad, pad))
        return y + self.bias[...]


class WeightNormConvTranspose1d(nnx.Module):
    """Weight-normed upsampling by `stride`; the norm is taken for each *input* channel."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        fan_in = outputs * 2 * stride  # the reference's convention for transposed kernels
        direction = uniform(rngs, (2 * stride, inputs, outputs), fan_in)
        self.direction = nnx.Param(direction, **KERNEL_AXES)
        self.scale = nnx.Param(jnp.linalg.norm(direction, axis=(0, 2)), **CHANNEL_AXES)
        self.bias = nnx.Param(uniform(rngs, (outputs,), fan_in), **CHANNEL_AXES)

    def __call__(self, x: Signal) -> Output:
        """`samples` -> exactly `samples * stride`."""
        direction = self.direction[...]
        gain = self.scale[...][:, None] * norm_over(direction, (0, 2))[..., None]
        y = upsample(x, direction * gain, self.stride)
        left = (self.stride + 1) // 2
        return y[:, left : left + x.shape[1] * self.stride] + self.bias[...]


def norm_over(direction: Array, axes: tuple[int, int]) -> Array:
    """One over the Euclidean norm."""
    return jax.lax.rsqrt(jnp.sum(jnp.square(direction), axis=axes))


SINE = [(-1) ** n / math.factorial(2 * n + 1) for n in range(6)]  # Taylor, to 6e-8 at pi / 2


def sine_squared(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """`sin(angle)^2` in float32 as exact as the library's sine, ten times as fast on a CPU.

    The square has period pi: the angle is reduced to [-pi/2, pi/2] (pi in two parts, so that large
    angles lose nothing) and a polynomial does the rest. Angles may be up to some ten thousand.
    """
    periods = jnp.round(angle * (1 / math.pi))
    near = (angle - periods * 3.140625) - periods * 9.67653589793e-4
    square = near * near
    series = functools.reduce(lambda total, c: total * square + c, reversed(SINE[:-1]), SINE[-1])
    return jnp.square(near * series)


class Snake(nnx.Module):
    """`x + sin(alpha x)^2 / (alpha + 1e-9)`, one alpha for each channel, in float32."""

    def __init__(self, channels: int):
        self.alpha = nnx.Param(jnp.ones(channels), **CHANNEL_AXES)

    def __call__(self, x: Signal) -> Signal:
        alpha = self.alpha[...]
        return x + sine_squared(alpha * x) / (alpha + 1e-9)
