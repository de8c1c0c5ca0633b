"""One jitted program from padded prompts to waves: encode, condition, integrate, decode.

What does not depend on the flow time is computed once per solve, and what does not depend on the
noise once per item, however many candidates it has (docs/model.md, "Separation").
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.infer.collate import Prompts
from sam_audio_jax.separator import flow
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions


class Networks(nnx.Module):
    """Everything with parameters that every separation runs."""

    def __init__(self, codec: Codec, text_encoder: T5Encoder, separator: Separator):
        self.codec = codec
        self.text_encoder = text_encoder
        self.separator = separator


def solve_latents(
    networks: Networks, prompts: Prompts, sampler: flow.SamplerConfig
) -> Float[Array, "rows frames state"]:
    """Target and residual latents, side by side on channels, of every candidate."""
    separator = networks.separator
    mixture = prompts.mixture
    mixture = networks.codec.encode(prompts.wave) if mixture is None else mixture
    conditions = Conditions.build(
        mixture=mixture,
        text=networks.text_encoder(prompts.text_ids, prompts.text_mask),
        text_mask=prompts.text_mask,
        anchors=prompts.anchors,
        video=prompts.video,
        video_width=separator.config.video_width,
        valid=prompts.valid,
    )
    context = separator.prepare(conditions)
    if prompts.candidates > 1:
        context = jax.tree.map(lambda x: jnp.repeat(x, prompts.candidates, axis=0), context)
    return flow.sample(lambda x, t: separator.velocity(x, t, context), prompts.noise, sampler)


def decode_stems(
    codec: Codec,
    latents: Float[Array, "rows frames state"],
    message: Int[Array, "waves bits"] | None = None,
) -> Float[Array, "rows stems samples"]:
    """Target and residual waves, decoded in one batch in the order of the messages."""
    rows, frames, state = latents.shape
    stems = jnp.moveaxis(latents.reshape(rows, frames, 2, state // 2), 2, 1)
    waves = codec.decode(stems.reshape(2 * rows, frames, state // 2), watermark=message)
    return waves.reshape(rows, 2, -1)


@functools.partial(jax.jit, static_argnames=("graph", "sampler"))
def separate_batch(
    graph: nnx.GraphDef, state: PyTree, prompts: Prompts, *, sampler: flow.SamplerConfig
) -> Float[Array, "batch candidates stems samples"]:
    networks = nnx.merge(graph, state)
    latents = solve_latents(networks, prompts, sampler)
    waves = decode_stems(networks.codec, latents, prompts.message)
    return waves.reshape(-1, prompts.candidates, *waves.shape[1:])


@functools.partial(jax.jit, static_argnames="graph")
def _encode(
    graph: nnx.GraphDef, state: PyTree, wave: Float[Array, "batch samples"]
) -> Float[Array, "batch frames channels"]:
    return nnx.merge(graph, state).codec.encode(wave)


class Solver:
    """The compiled program with its parameters in place; rows are shared out over `mesh`."""

    def __init__(self, networks: Networks, mesh: Mesh | None = None):
        self.graph, state = nnx.split(networks)
        self.state = nnx.as_pure(state)
        self.mesh = mesh
        if mesh is not None:
            self.state = jax.device_put(self.state, parallel.parameter_shardings(state, mesh))

    @property
    def shares(self) -> int:
        """Rows must be a multiple of this."""
        return 1 if self.mesh is None else parallel.batch_axis_size(self.mesh)

    def __call__(
        self, prompts: Prompts, sampler: flow.SamplerConfig
    ) -> Float[np.ndarray, "batch candidates stems samples"]:
        def run(prompts: Prompts) -> Array:
            return separate_batch(self.graph, self.state, prompts, sampler=sampler)

        return np.asarray(self._placed(run, prompts))

    def encode(self, prompts: Prompts) -> Prompts:
        """With the latents of the mixture, for those who need them before the solve."""
        latents = self._placed(lambda p: _encode(self.graph, self.state, p.wave), prompts)
        return dataclasses.replace(prompts, mixture=latents)

    def _placed(self, run: Callable[[Prompts], Array], prompts: Prompts) -> Array:
        if self.mesh is None:
            return run(prompts)
        with jax.set_mesh(self.mesh):
            return run(jax.device_put(prompts, parallel.batch_sharding(self.mesh)))
