"""The codec's discriminators, of waves folded by a period and of complex spectra cut into bands.

DAC's discriminators, unchanged in the released codec's package (docs/codec.md, "Training").
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Share, Size
from sam_audio_jax.codec.loss import Maps
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.spectral import stft

SLOPE = 0.1  # published: of the leaky ReLU


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(Checked, where="discriminator"):
    """Sizes; the defaults are the published ones, 42.5 million parameters."""

    periods: tuple[Size, ...] = (2, 3, 5, 7, 11)  # samples
    period_widths: tuple[Size, ...] = (32, 128, 512, 1024, 1024)  # channels of each layer
    windows: tuple[Size, ...] = (2048, 1024, 512)  # samples of the STFT
    window_width: Size = 32  # channels of every layer of the spectral discriminators
    bands: tuple[Share, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges, as parts of the spectrum

    def __post_init__(self):
        super().__post_init__()
        if not self.periods and not self.windows:
            raise UserError("discriminator.periods and discriminator.windows are both empty")
        if any(window < 4 or window % 4 for window in self.windows):
            raise UserError(f"discriminator.windows={self.windows} must be multiples of 4")
        if not self.period_widths or min(*self.period_widths, self.window_width) < 1:
            raise UserError(
                f"discriminator.period_widths={self.period_widths} and window_width="
                f"{self.window_width} must be 1 or more"
            )
        for window in self.windows:
            if any(last <= first for first, last in self.band_edges(window)):
                raise UserError(f"discriminator.bands={self.bands} leave a band of {window} empty")

    def band_edges(self, window: int) -> list[tuple[int, int]]:
        """First bin of each band and the bin after its last."""
        edges = [int((window // 2 + 1) * part) for part in self.bands]
        return list(itertools.pairwise(edges))


class WeightNormConv2d(nnx.Module):
    """`W = scale * direction / |direction|`, the norm over all but the output channel."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        bound = (inputs * window[0] * window[1]) ** -0.5
        shape = (*window, inputs, outputs)
        direction = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        bias = jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound)
        kernel_axes = parallel.axes("window", "window", "channels", "channels")
        self.direction = nnx.Param(direction, **kernel_axes)
        self.scale = nnx.Param(
            jnp.sqrt(jnp.sum(jnp.square(direction), axis=(0, 1, 2))), **parallel.axes("channels")
        )
        self.bias = nnx.Param(bias, **parallel.axes("channels"))

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width out_channels"]:
        """Convolves `x`, padded with zeros by half the window on every side."""
        direction = self.direction[...]
        length = jax.lax.rsqrt(jnp.sum(jnp.square(direction), axis=(0, 1, 2)))
        y = jax.lax.conv_general_dilated(
            x,
            direction * (self.scale[...] * length),
            self.stride,
            [(size // 2, size // 2) for size in direction.shape[:2]],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...]


class PeriodDiscriminator(nnx.Module):
    """Folds the wave by a period, so that a kernel covers samples that are one period apart."""

    def __init__(self, period: int, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.period = period
        strides = [(3, 1)] * (len(widths) - 1) + [(1, 1)]
        self.convs = nnx.List(
            WeightNormConv2d(inputs, outputs, (5, 1), stride=stride, rngs=rngs)
            for inputs, outputs, stride in zip((1, *widths), widths, strides, strict=False)
        )
        self.logits = WeightNormConv2d(widths[-1], 1, (3, 1), rngs=rngs)

    def __call__(
        self, wave: Float[Array, "batch samples"]
    ) -> list[Float[Array, "batch height width channels"]]:
        short = self.period - wave.shape[1] % self.period  # a whole period where none is missing
        x = jnp.pad(wave, ((0, 0), (0, short)), mode="reflect")
        x = x.reshape(x.shape[0], -1, self.period, 1)
        maps = []
        for conv in self.convs:
            x = nnx.leaky_relu(conv(x), SLOPE)
            maps.append(x)
        return [*maps, self.logits(x)]


class SpectrumDiscriminator(nnx.Module):
    """Takes the complex STFT; each band of it has its own layers, and all share the last layer."""

    def __init__(self, window: int, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.window, self.edges = window, tuple(config.band_edges(window))
        width = config.window_width
        layers = ((2, (3, 9), 1), *[(width, (3, 9), 2)] * 3, (width, (3, 3), 1))
        self.bands = nnx.List(
            nnx.List(
                WeightNormConv2d(inputs, width, size, stride=(1, stride), rngs=rngs)
                for inputs, size, stride in layers
            )
            for _ in self.edges
        )
        self.logits = WeightNormConv2d(width, 1, (3, 3), rngs=rngs)

    def __call__(
        self, wave: Float[Array, "batch samples"]
    ) -> list[Float[Array, "batch height width channels"]]:
        maps, tops = [], []
        for x, convs in zip(self.split(wave), self.bands, strict=True):
            for conv in convs:
                x = nnx.leaky_relu(conv(x), SLOPE)
                maps.append(x)
            tops.append(x)
        return [*maps, self.logits(jnp.concatenate(tops, axis=2))]

    def split(
        self, wave: Float[Array, "batch samples"]
    ) -> list[Float[Array, "batch frames bins 2"]]:
        """The bands of the spectrum, `samples / hop` frames each ("matched to stride")."""
        hop = self.window // 4
        side, short = (self.window - hop) // 2, -wave.shape[1] % hop
        if wave.shape[1] <= side + short:
            raise UserError(
                f"a wave of {wave.shape[1]} samples is too short for a discriminator window of "
                f"{self.window}"
            )
        padded = jnp.pad(wave, ((0, 0), (side, side + short)), mode="reflect")
        spectrum = jnp.stack(stft(padded, self.window, hop), axis=-1)[:, 2:-2]
        return [spectrum[:, :, first:last] for first, last in self.edges]


class Discriminator(nnx.Module):
    """All sub-discriminators, periods first."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.periods = nnx.List(
            PeriodDiscriminator(period, config.period_widths, rngs=rngs)
            for period in config.periods
        )
        self.spectra = nnx.List(
            SpectrumDiscriminator(window, config, rngs=rngs) for window in config.windows
        )

    def __call__(self, wave: Float[Array, "batch samples"]) -> Maps:
        """The feature maps of each sub-discriminator, in order, its logits last."""
        wave = normalise(wave)
        return [discriminate(wave) for discriminate in (*self.periods, *self.spectra)]


def normalise(wave: Float[Array, "batch samples"]) -> Float[Array, "batch samples"]:
    """Subtracts the mean of each row and scales its peak to 0.8."""
    wave = wave - jnp.mean(wave, axis=1, keepdims=True)
    return 0.8 * wave / (jnp.max(jnp.abs(wave), axis=1, keepdims=True) + 1e-9)
