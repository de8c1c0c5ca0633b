"""Hidden frames to a clean waveform (docs/codec.md, "Decoder")."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax.codec.encoder import DILATIONS, ResidualUnit
from sam_audio_jax.nn.conv import Snake, WeightNormConv1d, WeightNormConvTranspose1d


class DecoderBlock(nnx.Module):
    """Snake, upsampling that halves the channels, three residual units."""

    def __init__(self, channels: int, stride: int, *, rngs: nnx.Rngs):
        self.snake = Snake(channels)
        self.up = WeightNormConvTranspose1d(channels, channels // 2, stride, rngs=rngs)
        self.units = nnx.List([ResidualUnit(channels // 2, d, rngs=rngs) for d in DILATIONS])

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t2 c2"]:
        x = self.up(self.snake(x))
        for unit in self.units:
            x = unit(x)
        return x


class Decoder(nnx.Module):
    """`(batch, frames, latent_dim)` -> `(batch, frames * hop, 1)` within (-1, 1)."""

    def __init__(self, latent_dim: int, width: int, rates: Sequence[int], *, rngs: nnx.Rngs):
        self.stem = WeightNormConv1d(latent_dim, width, 7, rngs=rngs)
        widths = [width // 2**i for i in range(len(rates) + 1)]
        self.blocks = nnx.List(
            [DecoderBlock(w, s, rngs=rngs) for w, s in zip(widths, rates, strict=False)]
        )
        self.snake = Snake(widths[-1])
        self.out = WeightNormConv1d(widths[-1], 1, 7, rngs=rngs)

    def __call__(self, hidden: Float[Array, "b frames latent"]) -> Float[Array, "b t 1"]:
        x = self.stem(hidden)
        for block in self.blocks:
            x = block(x)
        return jnp.tanh(self.out(self.snake(x)))
