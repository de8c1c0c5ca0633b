"""Prompts that are tied to frames: masked video and span anchors (docs/model.md, "Conditions")."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sam_audio_jax import parallel
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.norm import LayerNorm


class AlignVideo(nnx.Module):
    """`tanh(gate) * LayerNorm(project(video))`, which the model adds to the frames.

    The paper concatenates; the released model adds. The gate starts at 0, as in the reference.
    """

    def __init__(self, video_width: int, width: int, *, dtype: str, rngs: nnx.Rngs):
        self.project = linear(
            video_width, width, ("channels", "embed"), dtype=dtype, bias=True, rngs=rngs
        )
        self.norm = LayerNorm(width, rngs=rngs)
        self.gate = nnx.Param(jnp.zeros(1), **parallel.axes("channels"))

    def __call__(
        self, video: Float[Array, "batch frames video_width"]
    ) -> Float[Array, "batch frames width"]:
        normal = self.norm(self.project(video))
        return jnp.tanh(self.gate[...]).astype(normal.dtype) * normal


class EmbedAnchors(nnx.Module):
    """`tanh(gate) * project(embed[id of the frame])`, which the model adds to the frames.

    The last row of the table stands for padding: it starts at 0 and no gradient changes it.
    """

    def __init__(self, anchors: int, anchor_width: int, width: int, *, dtype: str, rngs: nnx.Rngs):
        self.dtype = dtype
        table = jax.random.normal(rngs.params(), (anchors + 1, anchor_width))
        self.embed = nnx.Param(table.at[-1].set(0.0), **parallel.axes("channels", "channels"))
        self.project = linear(anchor_width, width, ("channels", "embed"), dtype=dtype, rngs=rngs)
        self.gate = nnx.Param(jnp.zeros(1), **parallel.axes("channels"))

    def __call__(self, anchors: Int[Array, "batch frames"]) -> Float[Array, "batch frames width"]:
        table = self.embed[...]
        table = jnp.concatenate([table[:-1], jax.lax.stop_gradient(table[-1:])])
        rows = jnp.tanh(self.gate[...]) * self.project(table)
        # One-hot product: the few rows are projected once, and the gradient needs no scatter.
        chosen = jax.nn.one_hot(anchors, table.shape[0], dtype=self.dtype)
        return chosen @ rows.astype(self.dtype)
