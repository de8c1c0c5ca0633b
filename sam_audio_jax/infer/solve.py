"""One jitted program from padded prompts to waves: encode, condition, integrate, decode.

What does not depend on the flow time is computed once per solve (spec/model.md, sections 3, 6, 7).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec, pad_to_hop
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.infer.buckets import Group, power_of_two
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.separator import flow
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions, pack_anchors, valid_frames

Tokenize = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]  # texts -> ids, mask

LEAST_TOKENS = 32  # texts are padded to this or a larger power of two
LEAST_SLOTS = 4  # so are the spans of an item


class Networks(nnx.Module):
    """Everything with parameters that a separation runs."""

    def __init__(self, codec: Codec, text_encoder: T5Encoder, separator: Separator):
        self.codec = codec
        self.text_encoder = text_encoder
        self.separator = separator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """One group of items as arrays of the group's shape."""

    wave: Float[Array, "batch samples"]
    valid: Bool[Array, "batch frames"]
    text_ids: Int[Array, "batch tokens"]
    text_mask: Bool[Array, "batch tokens"]
    anchor_ids: Int[Array, "batch slots"]
    anchor_alignment: Int[Array, "batch frames"]
    noise: Float[Array, "batch frames state"]


def pack(
    items: Sequence[Item],
    noises: Sequence[Float[np.ndarray, "frames state"]],
    group: Group,
    *,
    codec: Codec,
    tokenizer: Tokenize,
) -> Prompts:
    """Pads the group's items to its shape; rows that are left over repeat the last item.

    Each wave is reflected to whole frames and then continued with zeros, as upstream's batches.
    """
    rows = [items[min(row, len(items) - 1)] for row in range(group.rows)]
    hop, rate = codec.config.hop, codec.config.sample_rate
    wave = np.zeros((group.rows, group.frames * hop), np.float32)
    for out, item in zip(wave, rows, strict=True):
        whole = pad_to_hop(item.wave, hop)
        out[: len(whole)] = whole
    sizes = [codec.config.frames(len(item.wave)) for item in rows]
    ids, mask = tokenizer([item.text for item in rows])
    extra = ((0, 0), (0, power_of_two(ids.shape[1], least=LEAST_TOKENS) - ids.shape[1]))
    slots = power_of_two(max(len(item.spans) for item in rows), least=LEAST_SLOTS)
    anchor_ids, alignment = pack_anchors(
        [item.spans for item in rows],
        sizes,
        sample_rate=rate,
        hop=hop,
        frames=group.frames,
        slots=slots,
    )
    noise = np.stack([noises[min(row, len(items) - 1)] for row in range(group.rows)])
    return Prompts(
        wave=jnp.asarray(wave),
        valid=jnp.asarray(valid_frames(sizes, group.frames)),
        text_ids=jnp.asarray(np.pad(ids, extra)),
        text_mask=jnp.asarray(np.pad(mask, extra)),
        anchor_ids=jnp.asarray(anchor_ids),
        anchor_alignment=jnp.asarray(alignment),
        noise=jnp.asarray(noise),
    )


def solve_latents(
    networks: Networks, prompts: Prompts, *, method: flow.Method, steps: int
) -> Float[Array, "batch frames state"]:
    """Target and residual latents, side by side on channels."""
    separator = networks.separator
    mixture = networks.codec.encode(prompts.wave)
    video_width = separator.config.video_width
    conditions = Conditions(
        mixture=mixture,
        text=networks.text_encoder(prompts.text_ids, prompts.text_mask),
        text_mask=prompts.text_mask,
        video=jnp.zeros((*mixture.shape[:2], video_width)),  # no video is zeros, not a skip
        anchor_ids=prompts.anchor_ids,
        anchor_alignment=prompts.anchor_alignment,
        valid=prompts.valid,
    )
    context = separator.prepare(conditions)
    return flow.sample(
        lambda x, t: separator.velocity(x, t, context), prompts.noise, method=method, steps=steps
    )


def decode_stems(
    codec: Codec, latents: Float[Array, "batch frames state"]
) -> Float[Array, "batch stems samples"]:
    """Target and residual waves, decoded in one batch, without a watermark."""
    batch, frames, state = latents.shape
    stems = jnp.moveaxis(latents.reshape(batch, frames, 2, state // 2), 2, 1)
    waves = codec.decode(stems.reshape(2 * batch, frames, state // 2))
    return waves.reshape(batch, 2, -1)


@functools.partial(jax.jit, static_argnames=("graph", "method", "steps"))
def _separate(
    graph: nnx.GraphDef, state: PyTree, prompts: Prompts, *, method: flow.Method, steps: int
) -> Float[Array, "batch stems samples"]:
    networks = nnx.merge(graph, state)
    return decode_stems(
        networks.codec, solve_latents(networks, prompts, method=method, steps=steps)
    )


class Solver:
    """The compiled program with its parameters in place; rows are shared out over `mesh`."""

    def __init__(self, networks: Networks, mesh: Mesh | None = None):
        self.graph, state = nnx.split(networks)
        self.state = nnx.as_pure(state)
        self.mesh = mesh
        if mesh is not None:
            self.state = jax.device_put(self.state, parallel.of_parameters(state, mesh))

    @property
    def shares(self) -> int:
        """Rows must be a multiple of this."""
        return 1 if self.mesh is None else parallel.batch_shares(self.mesh)

    def __call__(
        self, prompts: Prompts, *, method: flow.Method, steps: int
    ) -> Float[np.ndarray, "batch stems samples"]:
        if self.mesh is None:
            return np.asarray(
                _separate(self.graph, self.state, prompts, method=method, steps=steps)
            )
        with jax.set_mesh(self.mesh):
            prompts = jax.device_put(prompts, parallel.of_batch(self.mesh))
            return np.asarray(
                _separate(self.graph, self.state, prompts, method=method, steps=steps)
            )
