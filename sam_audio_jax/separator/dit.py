"""The diffusion transformer that predicts the velocity of the flow.

Paper: arXiv 2512.18099, table 12 for the sizes. Arithmetic: docs/model.md, "Block".
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Decay, Depth, Positive, Size
from sam_audio_jax.config import FREE
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import rope
from sam_audio_jax.nn.attention import Attention
from sam_audio_jax.nn.embed import GatedProjection, dropout, sinusoid
from sam_audio_jax.nn.kernels import Kernel
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import RMSNorm
from sam_audio_jax.nn.patcher import Patcher
from sam_audio_jax.nn.stack import Remat, scan_blocks, stacked

ZEROS = jax.nn.initializers.zeros
STEP_SCALE = 1_000.0  # a step from noise to data, in the unit of its sinusoid


@dataclasses.dataclass(frozen=True, kw_only=True)
class DitConfig(Checked, where="dit"):
    """Size and numerics of the transformer; the defaults are `small`."""

    depth: Depth = 12
    width: Size = 1536  # residual stream
    heads: Size = 12
    mlp: Size = 4096  # hidden size of the feed-forward, after the SwiGLU 2/3 rule
    dropout: Decay = 0.1  # after the patcher, in every feed-forward, before the output
    context_dropout: Decay = 0.0  # of the memory's projection
    norm_eps: Positive = 1e-5
    qk_norm: bool = True
    context_norm: bool = False  # RMSNorm on the memory before its projection
    max_positions: Size = 10_000  # frames; the rotary base is twice this, at least 10,000
    frequency_width: Size = 256  # of the time sinusoid that modulates the blocks
    # A second embedding, of the size of a solver step (docs/training.md, "Few steps").
    step_size: bool = False
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # compute; parameters are float32
    remat: Remat = dataclasses.field(default="none", metadata=FREE)  # in the backward pass
    attention: Kernel = dataclasses.field(default="auto", metadata=FREE)  # among frames
    # Blocks per iteration of the scan: unrolling all of them saves a seventh of a step on a CPU, at
    # a compile time that grows with the depth
    unroll: Depth = dataclasses.field(default=1, metadata=FREE)

    def __post_init__(self):
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UserError(
                f"dit.width={self.width} must be a multiple of twice dit.heads={self.heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def theta(self) -> float:
        """Base of the rotary frequencies."""
        return rope.base(self.max_positions)


class Block(nnx.Module):
    """Modulated self-attention, plain cross-attention, modulated feed-forward.

    The cross-attention has neither norm nor modulation nor gate, as in the reference.
    """

    def __init__(self, config: DitConfig, *, rngs: nnx.Rngs):
        attention = functools.partial(
            Attention,
            config.width,
            config.heads,
            config.head_dim,
            scale=config.head_dim**-0.5,
            qk_eps=config.norm_eps if config.qk_norm else None,
            dtype=config.dtype,
            rngs=rngs,
        )
        norm = functools.partial(RMSNorm, config.width, eps=config.norm_eps, rngs=rngs)
        table = jax.random.normal(rngs.params(), (6, config.width)) / config.width**0.5
        self.modulation = nnx.Param(table, **parallel.axes("channels", "vector"))
        self.attention_norm = norm()
        self.attention = attention(kernel=config.attention)
        # Ungated, so initialised small: together the layers add about one layer's worth.
        small = jax.nn.initializers.variance_scaling(
            (2 * config.depth) ** -2, "fan_in", "truncated_normal"
        )
        self.cross_attention = attention(out_init=small)
        self.mlp_norm = norm()
        self.mlp = GatedProjection(
            config.width,
            config.mlp,
            config.width,
            dropout=config.dropout,
            dtype=config.dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        modulation: Float[Array, "batch 6 width"],
        memory: Float[Array, "batch tokens width"],
        *,
        valid: Bool[Array, "batch frames"] | None,
        memory_mask: Bool[Array, "batch tokens"] | None,
        angle: Float[np.ndarray, "frames pairs"] | Float[Array, "frames pairs"],
        key: Key[Array, ""] | None,
    ) -> Float[Array, "batch frames width"]:
        rows = (self.modulation[...] + modulation).astype(x.dtype)
        shift1, scale1, gate1, shift2, scale2, gate2 = (rows[:, i, None] for i in range(6))
        normal = self.attention_norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(normal, mask=valid, angle=angle)
        x = x + self.cross_attention(x, memory, mask=memory_mask)
        normal = self.mlp_norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.mlp(normal, key)


class TimeEmbedding(nnx.Module):
    """Maps the flow time to a vector and to six modulation rows for all blocks, in float32."""

    def __init__(self, config: DitConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.frequency_width = config.frequency_width
        self.project = GatedProjection(
            config.frequency_width, width, width, dropout=config.dropout, dtype="float32", rngs=rngs
        )
        self.to_blocks = linear(
            width, 6 * width, ("embed", "mlp"), dtype="float32", bias=True, init=ZEROS, rngs=rngs
        )

    def __call__(
        self,
        time: Float[Array, " batch"],
        key: Key[Array, ""] | None = None,
        step: Float[Array, "batch width"] | None = None,
    ) -> tuple[Float[Array, "batch width"], Float[Array, "batch 6 width"]]:
        vector = self.project(sinusoid(time, self.frequency_width), key)
        vector = vector if step is None else vector + step
        rows = self.to_blocks(nnx.silu(vector)).reshape(vector.shape[0], 6, -1)
        return parallel.constrain(vector, "batch", "width"), parallel.constrain(
            rows, "batch", "tokens", "width"
        )


class StepSizeEmbedding(nnx.Module):
    """Maps the size of a solver step to what is added to the time's vector, in float32.

    It starts at zero: a network that gets one begins as the network that it was.
    """

    def __init__(self, config: DitConfig, *, rngs: nnx.Rngs):
        self.frequency_width = config.frequency_width
        self.project = GatedProjection(
            config.frequency_width,
            config.width,
            config.width,
            dropout=config.dropout,
            dtype="float32",
            out_init=ZEROS,
            rngs=rngs,
        )

    def __call__(
        self, size: Float[Array, " batch"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch width"]:
        vector = self.project(sinusoid(STEP_SCALE * size, self.frequency_width), key)
        return parallel.constrain(vector, "batch", "width")


class Dit(nnx.Module):
    """A stack of `depth` blocks between a patcher and a modulated output projection.

    The initialisation is ours, as the reference's training is not published: the output projection
    and the map from time to modulation are zero, the modulation tables normal / sqrt(width) as
    upstream. So gates start small and the velocity at 0, and a high rate is stable from the first
    step.
    """

    def __init__(self, config: DitConfig, channels: int, *, rngs: nnx.Rngs):
        width = config.width
        self.config = config
        self.time = TimeEmbedding(config, rngs=rngs)
        norm = functools.partial(RMSNorm, width, eps=config.norm_eps, rngs=rngs)
        self.context_norm = norm() if config.context_norm else None
        self.context = GatedProjection(
            width, width, width, dropout=config.context_dropout, dtype=config.dtype, rngs=rngs
        )
        self.patcher = Patcher(width, dtype=config.dtype, rngs=rngs)
        self.blocks = stacked(lambda rngs: Block(config, rngs=rngs), config.depth, rngs)
        self.norm = norm()
        table = jax.random.normal(rngs.params(), (2, width)) / width**0.5
        self.modulation = nnx.Param(table, **parallel.axes("channels", "vector"))
        self.out = linear(
            width, channels, ("embed", "channels"), dtype=config.dtype, init=ZEROS, rngs=rngs
        )
        # Last, so that the others draw the same initial values with and without it.
        self.step_size = StepSizeEmbedding(config, rngs=rngs) if config.step_size else None

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        time: Float[Array, " batch"],
        memory: Float[Array, "batch tokens width"],
        *,
        step_size: Float[Array, " batch"] | None = None,
        valid: Bool[Array, "batch frames"] | None = None,
        memory_mask: Bool[Array, "batch tokens"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch frames channels"]:
        """Velocity in float32. Dropout happens only with a `key`, and is a function of it."""
        return self.with_hidden(
            x,
            time,
            memory,
            layer=self.config.depth,
            step_size=step_size,
            valid=valid,
            memory_mask=memory_mask,
            key=key,
        )[0]

    def with_hidden(
        self,
        x: Float[Array, "batch frames width"],
        time: Float[Array, " batch"],
        memory: Float[Array, "batch tokens width"],
        *,
        layer: int,
        step_size: Float[Array, " batch"] | None = None,
        valid: Bool[Array, "batch frames"] | None = None,
        memory_mask: Bool[Array, "batch tokens"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch frames channels"], Float[Array, "batch frames width"]]:
        """The velocity of a call, and the state after `layer` blocks.

        For fewer than all blocks it copies the weights of the stack. `step_size` counts in a
        network that has an embedding of it; None is 0.
        """
        config = self.config
        if x.shape[1] > config.max_positions:
            raise UserError(
                f"{x.shape[1]} frames given, at most {config.max_positions} are allowed"
            )
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        step = None
        if self.step_size is not None:
            size = jnp.zeros_like(time) if step_size is None else step_size
            own = None if key is None else jax.random.fold_in(key, 5)
            step = self.step_size(size, own)
        vector, modulation = self.time(time, keys[0], step)
        memory = memory if self.context_norm is None else self.context_norm(memory)
        memory = self.context(memory, keys[1])
        x = dropout(self.patcher(x), config.dropout, keys[2])
        x, hidden = self._run_blocks(x, modulation, memory, valid, memory_mask, keys[3], layer)
        shift, scale = jnp.moveaxis(self.modulation[...] + vector[:, None], 1, 0)[:, :, None]
        x = self.norm(x) * (1 + scale.astype(x.dtype)) + shift.astype(x.dtype)
        last = None if key is None else jax.random.fold_in(key, 4)
        return self.out(dropout(x, config.dropout, last)).astype(jnp.float32), hidden

    def _run_blocks(self, x, modulation, memory, valid, memory_mask, key, layer):
        """Returns the state after all blocks, and that after `layer` of them."""
        config = self.config
        angle = rope.angles(x.shape[1], config.head_dim, config.theta)

        def call(block: Block, x: Array, key: Array | None) -> Array:
            return block(
                x, modulation, memory, valid=valid, memory_mask=memory_mask, angle=angle, key=key
            )

        run = functools.partial(
            scan_blocks,
            self.blocks,
            call=call,
            axes=("batch", "frames", "width"),
            dtype=config.dtype,
            per_layer=None if key is None else jax.random.split(key, config.depth),
            remat=config.remat,
            unroll=config.unroll,
        )
        if layer == config.depth:
            x = run(x)
            return x, x
        hidden = run(x, layers=slice(layer))
        return run(hidden, layers=slice(layer, None)), hidden
