"""Waveform to hidden frames (docs/codec.md, "Encoder")."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax.nn.conv import PlainConv1d, Snake, WeightNormConv1d

DILATIONS = (1, 3, 9)
Conv = type[WeightNormConv1d] | type[PlainConv1d]


class ResidualUnit(nnx.Module):
    """`x + conv1(snake(conv7(snake(x))))`; the length stays."""

    def __init__(
        self, channels: int, dilation: int, *, conv: Conv = WeightNormConv1d, rngs: nnx.Rngs
    ):
        self.snake_in = Snake(channels)
        self.dilated = conv(channels, channels, 7, dilation=dilation, rngs=rngs)
        self.snake_out = Snake(channels)
        self.pointwise = conv(channels, channels, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        return x + self.pointwise(self.snake_out(self.dilated(self.snake_in(x))))


class EncoderBlock(nnx.Module):
    """Three residual units, then a strided convolution that doubles the channels."""

    def __init__(self, channels: int, stride: int, *, conv: Conv, rngs: nnx.Rngs):
        self.units = nnx.List([ResidualUnit(channels, d, conv=conv, rngs=rngs) for d in DILATIONS])
        self.snake = Snake(channels)
        self.down = conv(channels, 2 * channels, 2 * stride, stride=stride, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t2 c2"]:
        for unit in self.units:
            x = unit(x)
        return self.down(self.snake(x))


class Encoder(nnx.Module):
    """`(batch, samples, 1)` -> `(batch, frames, latent_dim)`.

    With weight norm (the codec's) an odd stride loses a frame; the span predictor's has none.
    """

    def __init__(
        self,
        width: int,
        rates: Sequence[int],
        latent_dim: int,
        *,
        conv: Conv = WeightNormConv1d,
        rngs: nnx.Rngs,
    ):
        self.stem = conv(1, width, 7, rngs=rngs)
        widths = [width * 2**i for i in range(len(rates) + 1)]
        self.blocks = nnx.List(
            [EncoderBlock(w, s, conv=conv, rngs=rngs) for w, s in zip(widths, rates, strict=False)]
        )
        self.snake = Snake(widths[-1])
        self.out = conv(widths[-1], latent_dim, 3, rngs=rngs)

    def __call__(self, wave: Float[Array, "b t 1"]) -> Float[Array, "b frames latent"]:
        x = self.stem(wave)
        for block in self.blocks:
            x = block(x)
        return self.out(self.snake(x))
