"""The inaudible mark that the reference adds to every decoded wave (docs/codec.md, "Watermark").

A causal network of the waveform alone. `down` and `up` mirror each other; the reference stores
their layers inside the decoder's blocks, which `convert/codec.py` undoes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax.nn.conv import (
    CHANNEL_AXES,
    KERNEL_AXES,
    Conv1d,
    Output,
    Signal,
    uniform,
    upsample,
)
from sam_audio_jax.parallel import axes


def causal(conv: Conv1d, x: Signal, stride: int = 1) -> Output:
    """Zeros on the left, and on the right up to a multiple of the stride."""
    window = conv.kernel.shape[0]
    return conv(x, stride=stride, pad=(window - stride, -x.shape[1] % stride))


class EluUnit(nnx.Module):
    """`x + conv1(elu(conv3(elu(x))))` through half the channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.squeeze = Conv1d(channels, channels // 2, 3, rngs=rngs)
        self.expand = Conv1d(channels // 2, channels, 1, rngs=rngs)

    def __call__(self, x: Signal) -> Signal:
        return x + causal(self.expand, nnx.elu(causal(self.squeeze, nnx.elu(x))))


class DownStage(nnx.Module):
    """ELU unit, then a strided causal convolution."""

    def __init__(self, narrow: int, wide: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.unit = EluUnit(narrow, rngs=rngs)
        self.conv = Conv1d(narrow, wide, 2 * stride, rngs=rngs)

    def __call__(self, x: Signal) -> Output:
        return causal(self.conv, nnx.elu(self.unit(x)), self.stride)


class UpStage(nnx.Module):
    """Causal transposed convolution, then an ELU unit."""

    def __init__(self, wide: int, narrow: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        fan_in = narrow * 2 * stride
        self.kernel = nnx.Param(uniform(rngs, (2 * stride, wide, narrow), fan_in), **KERNEL_AXES)
        self.bias = nnx.Param(uniform(rngs, (narrow,), fan_in), **CHANNEL_AXES)
        self.unit = EluUnit(narrow, rngs=rngs)

    def __call__(self, x: Signal) -> Output:
        y = upsample(nnx.elu(x), self.kernel[...], self.stride)
        return self.unit(y[:, : x.shape[1] * self.stride] + self.bias[...])


class LstmLayer(nnx.Module):
    """PyTorch's cell: gates i, f, g, o; two biases; zero initial state; scanned over time."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        matrix, bias = axes("channels", "channels"), CHANNEL_AXES
        self.input = nnx.Param(uniform(rngs, (width, 4 * width), width), **matrix)
        self.hidden = nnx.Param(uniform(rngs, (width, 4 * width), width), **matrix)
        self.input_bias = nnx.Param(uniform(rngs, (4 * width,), width), **bias)
        self.hidden_bias = nnx.Param(uniform(rngs, (4 * width,), width), **bias)

    def __call__(self, x: Signal) -> Signal:
        gates = x @ self.input[...] + self.input_bias[...] + self.hidden_bias[...]
        hidden_kernel = self.hidden[...]

        def cell(state, gate):
            h, c = state
            i, f, g, o = jnp.split(gate + h @ hidden_kernel, 4, axis=-1)
            c = nnx.sigmoid(f) * c + nnx.sigmoid(i) * jnp.tanh(g)
            h = nnx.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros_like(x[:, 0])
        _, y = jax.lax.scan(cell, (zero, zero), gates.swapaxes(0, 1))
        return y.swapaxes(0, 1)


class Lstm(nnx.Module):
    """A stack of layers with one skip over all of them."""

    def __init__(self, width: int, depth: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([LstmLayer(width, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: Signal) -> Signal:
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y


class Watermark(nnx.Module):
    """Maps the clean wave and a message to the signal that is added, times `strength`."""

    def __init__(
        self,
        widths: Sequence[int],
        rates: Sequence[int],
        *,
        code: int,
        bits: int,
        lstm_depth: int,
        rngs: nnx.Rngs,
    ):
        """`widths` runs from the waveform's side to the code's: one more than `rates`."""
        hidden = widths[-1]
        self.strength = widths[0] / code
        self.stem = Conv1d(1, widths[0], 7, rngs=rngs)
        steps = list(zip(widths, widths[1:], rates, strict=False))
        self.down = nnx.List([DownStage(n, w, s, rngs=rngs) for n, w, s in steps])
        self.lstm_down = Lstm(hidden, lstm_depth, rngs=rngs)
        self.to_code = Conv1d(hidden, code, 7, rngs=rngs)
        table = jax.random.normal(rngs.params(), (2 * bits, code))
        self.message = nnx.Param(table, **axes("channels", "channels"))
        self.from_code = Conv1d(code, hidden, 7, rngs=rngs)
        self.lstm_up = Lstm(hidden, lstm_depth, rngs=rngs)
        self.up = nnx.List([UpStage(w, n, s, rngs=rngs) for n, w, s in reversed(steps)])
        self.out = Conv1d(widths[0], 1, 7, rngs=rngs)

    @property
    def bits(self) -> int:
        return self.message.shape[0] // 2

    def encode(self, wave: Float[Array, "b t 1"]) -> Float[Array, "b t2 code"]:
        x = causal(self.stem, wave)
        for stage in self.down:
            x = stage(x)
        return causal(self.to_code, nnx.elu(self.lstm_down(x)))

    def embed(self, message: Int[Array, "b bits"]) -> Float[Array, "b 1 code"]:
        """Bit j with value b selects row `2 j + b`; the rows are summed."""
        rows = 2 * jnp.arange(self.bits) + message
        return self.message[...][rows].sum(axis=1)[:, None]

    def __call__(
        self, wave: Float[Array, "b t 1"], message: Int[Array, "b bits"]
    ) -> Float[Array, "b t 1"]:
        x = self.lstm_up(causal(self.from_code, self.encode(wave) + self.embed(message)))
        for stage in self.up:
            x = stage(x)
        return causal(self.out, nnx.elu(x))[:, : wave.shape[1]]
