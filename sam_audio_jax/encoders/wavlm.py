"""WavLM, a speech encoder: convolutions over the wave, then a transformer with gated positions.

Paper: arXiv 2110.13900. Arithmetic: docs/scoring.md, "Aesthetics", whose model it is a part of.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Depth, Positive, Size
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.conv import CHANNEL_AXES, convolve, uniform
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.mlp import Mlp
from sam_audio_jax.nn.norm import LayerNorm, standardise
from sam_audio_jax.nn.stack import scan_outputs, stacked

GATE_PARTS = 4  # numbers that are summed to each of the two gates of a head

Hidden = Float[Array, "batch frames width"]
KeepState = Callable[[Hidden], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WavlmConfig(Checked, where="wavlm"):
    """Sizes and numerics of the encoder; the defaults are those of WavLM-base."""

    # Channels, window and stride of each convolution over the wave.
    convolutions: tuple[tuple[Size, Size, Size], ...] = (
        (512, 10, 5),
        *((512, 3, 2),) * 4,
        *((512, 2, 2),) * 2,
    )
    width: Size = 768  # residual stream
    depth: Depth = 12
    heads: Size = 12
    mlp: Size = 3072
    position_window: Size = 128  # frames of the positional convolution
    position_groups: Size = 16
    buckets: Size = 320  # of relative positions, half of them for each direction
    max_distance: Size = 800  # frames from which on all positions share a bucket
    norm_eps: Positive = 1e-5
    dtype: Literal["bfloat16", "float32"] = "float32"  # compute; parameters are float32

    def __post_init__(self):
        super().__post_init__()
        if not self.convolutions:
            raise UserError("wavlm.convolutions is empty: the encoder has at least one")
        for name in ("heads", "position_groups"):
            if self.width % getattr(self, name):
                raise UserError(
                    f"wavlm.width={self.width} must be a multiple of "
                    f"wavlm.{name}={getattr(self, name)}"
                )
        if self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise UserError(
                f"wavlm.buckets={self.buckets} must be a multiple of 4 and below four times "
                f"wavlm.max_distance={self.max_distance}"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def shortest(self) -> int:
        """Samples of the shortest wave that gives a frame."""
        samples = 1
        for _, window, stride in reversed(self.convolutions):
            samples = (samples - 1) * stride + window
        return samples

    def frames(self, samples: int) -> int:
        """Frames of a wave of so many samples."""
        for _, window, stride in self.convolutions:
            samples = (samples - window) // stride + 1
        return max(samples, 0)


def relative_buckets(frames: int, buckets: int, max_distance: int) -> Int[np.ndarray, "query key"]:
    """The bucket of the position of each key relative to each query.

    Half of the buckets are for keys behind the query. In each half the first half counts single
    frames, the rest grow with the logarithm of the distance, up to `max_distance`. The logarithm is
    float32 as in the reference, so that no distance changes its bucket.
    """
    half, exact = buckets // 2, buckets // 4
    relative = np.arange(frames)[None, :] - np.arange(frames)[:, None]
    distance = np.abs(relative)
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact))
    far = np.minimum((exact + ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(relative > 0, half, 0) + np.where(distance < exact, distance, far)


class FeatureConv(nnx.Module):
    """A convolution over the wave without bias or padding, an optional norm, then GELU.

    The norm is over time, for each channel by itself (a group norm with as many groups), in
    float32.
    """

    def __init__(
        self, inputs: int, outputs: int, window: int, stride: int, *, norm: bool, eps: float, rngs
    ):
        self.stride, self.eps = stride, eps
        self.kernel = nnx.Param(
            uniform(rngs, (window, inputs, outputs), inputs * window),
            **parallel.axes("window", "channels", "embed"),
        )
        axes = parallel.axes("vector")
        self.scale = nnx.Param(jnp.ones(outputs), **axes) if norm else None
        self.bias = nnx.Param(jnp.zeros(outputs), **axes) if norm else None

    def __call__(
        self, x: Float[Array, "batch samples inputs"]
    ) -> Float[Array, "batch frames outputs"]:
        y = convolve(x, self.kernel[...].astype(x.dtype), stride=self.stride)
        if self.scale is not None and self.bias is not None:
            normal = standardise(y.astype(jnp.float32), (1,), self.eps)
            y = (normal * self.scale[...] + self.bias[...]).astype(y.dtype)
        return jax.nn.gelu(y, approximate=False)


class PositionConv(nnx.Module):
    """Adds positions: `x + gelu(conv(x))`, a grouped convolution over a wide window.

    Its kernel is weight-normed for each tap: `scale[k] * direction[k] / |direction[k]|`. As many
    frames leave as enter: of an even window one frame less is padded behind than before.
    """

    def __init__(self, config: WavlmConfig, *, rngs: nnx.Rngs):
        self.groups = config.position_groups
        inputs = config.width // self.groups
        shape = (config.position_window, inputs, config.width)
        direction = uniform(rngs, shape, inputs * config.position_window)
        self.direction = nnx.Param(direction, **parallel.axes("window", "channels", "embed"))
        self.scale = nnx.Param(jnp.linalg.norm(direction, axis=(1, 2)), **parallel.axes("window"))
        self.bias = nnx.Param(jnp.zeros(config.width), **CHANNEL_AXES)

    def kernel(self) -> Float[Array, "window in out"]:
        direction = self.direction[...]
        length = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(1, 2)))
        return direction * (self.scale[...] / length)[:, None, None]

    def __call__(self, x: Hidden) -> Hidden:
        window = len(self.direction[...])
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel().astype(x.dtype),
            (1,),
            [(window // 2, (window - 1) // 2)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        return x + jax.nn.gelu(y + self.bias[...].astype(x.dtype), approximate=False)


class PositionGate(nnx.Module):
    """Scales the bias of relative positions for each head and query, from the layer's input."""

    def __init__(self, heads: int, head_dim: int, *, dtype: str, rngs: nnx.Rngs):
        self.project = linear(
            head_dim, 2 * GATE_PARTS, ("head_dim", "channels"), dtype=dtype, bias=True, rngs=rngs
        )
        self.heads = heads
        self.gain = nnx.Param(jnp.ones(heads), **parallel.axes("vector"))

    def __call__(self, x: Hidden) -> Float[Array, "batch heads frames 1"]:
        heads = x.reshape(*x.shape[:2], self.heads, -1)
        parts = self.project(heads).astype(jnp.float32)
        summed = parts.reshape(*heads.shape[:3], 2, GATE_PARTS).sum(axis=-1)
        first, second = jnp.moveaxis(nnx.sigmoid(summed), -1, 0)
        gate = first * (second * self.gain[...] - 1) + 2
        return gate.swapaxes(1, 2)[..., None]


class Block(nnx.Module):
    """Self-attention with a gated bias of positions, then the MLP, both post-normalised."""

    def __init__(self, config: WavlmConfig, *, rngs: nnx.Rngs):
        width, dtype = config.width, config.dtype
        self.gate = PositionGate(config.heads, config.head_dim, dtype=dtype, rngs=rngs)
        self.attention = Attention(
            width,
            config.heads,
            config.head_dim,
            scale=config.head_dim**-0.5,
            qk_eps=None,
            bias=True,
            dtype=dtype,
            rngs=rngs,
        )
        self.attention_norm = LayerNorm(width, eps=config.norm_eps, rngs=rngs)
        self.mlp = Mlp(width, config.mlp, dtype=dtype, rngs=rngs)
        self.mlp_norm = LayerNorm(width, eps=config.norm_eps, rngs=rngs)

    def __call__(
        self,
        x: Hidden,
        *,
        valid: Bool[Array, "batch frames"],
        bias: Float[Array, "heads frames frames"],
    ) -> Hidden:
        x = self.attention_norm(x + self.attention(x, mask=valid, bias=self.gate(x) * bias))
        return self.mlp_norm(x + self.mlp(x))


class WavlmEncoder(nnx.Module):
    """Maps waves to the states before and after each layer.

    All layers share one table of biases of relative positions; each scales them by gates of its
    own.
    """

    def __init__(self, config: WavlmConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, eps, convs, inputs = config.width, config.norm_eps, [], 1
        for channels, window, stride in config.convolutions:
            norm = not convs
            convs.append(
                FeatureConv(inputs, channels, window, stride, norm=norm, eps=eps, rngs=rngs)
            )
            inputs = channels
        self.convs = nnx.List(convs)
        self.features_norm = LayerNorm(inputs, eps=eps, rngs=rngs)
        self.project = linear(
            inputs, width, ("channels", "embed"), dtype=config.dtype, bias=True, rngs=rngs
        )
        self.position = PositionConv(config, rngs=rngs)
        self.norm = LayerNorm(width, eps=eps, rngs=rngs)
        table = 0.02 * jax.random.normal(rngs.params(), (config.buckets, config.heads))
        self.relative_bias = nnx.Param(table, **parallel.axes("vector", "heads"))
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)

    def valid_frames(
        self, lengths: Int[Array, " batch"], samples: int
    ) -> Bool[Array, "batch frames"]:
        """Which frames of waves of `samples` samples, the first `lengths` of them sound, are sound.

        As in the reference each frame stands for `samples // frames` samples, though its window is
        wider; it is sound when any of them is.
        """
        frames = self.config.frames(samples)
        return jnp.arange(frames) * (samples // frames) < lengths[:, None]

    def embed(
        self, wave: Float[Array, "batch samples"], valid: Bool[Array, "batch frames"]
    ) -> Hidden:
        """The state before the first layer; frames that are not valid enter it as zeros."""
        x = wave.astype(self.config.dtype)[:, :, None]
        for conv in self.convs:
            x = conv(x)
        x = jnp.where(valid[:, :, None], self.project(self.features_norm(x)), 0)
        return self.norm(self.position(x))

    def states(
        self, wave: Float[Array, "batch samples"], lengths: Int[Array, " batch"], keep: KeepState
    ) -> Any:
        """`keep(state)` of the state before the first layer and after each, stacked on axis 0.

        Samples from `lengths` on are silence that is not attended to. Raises `UserError` for waves
        without a frame.
        """
        config = self.config
        if wave.shape[1] < config.shortest:
            raise UserError(
                f"waves of {wave.shape[1]} samples are too short for WavLM: at least "
                f"{config.shortest} are needed"
            )
        valid = self.valid_frames(lengths, wave.shape[1])
        buckets = relative_buckets(valid.shape[1], config.buckets, config.max_distance)
        bias = self.relative_bias[...][buckets].transpose(2, 0, 1)

        def layer(block: Block, x: Hidden, _: None) -> tuple[Hidden, Any]:
            x = block(x, valid=valid, bias=bias)
            return x, keep(x)

        first = self.embed(wave, valid)
        axes = ("batch", "tokens", "width")
        _, kept = scan_outputs(self.blocks, first, layer, axes=axes, dtype=config.dtype)
        return jax.tree.map(lambda one, all_: jnp.concatenate([one[None], all_]), keep(first), kept)
