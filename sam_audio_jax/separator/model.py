"""SAM Audio's generator: conditions in, velocity of target and residual latents out.

Paper: arXiv 2512.18099, section 3. Arithmetic: docs/model.md, "Conditions".
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from sam_audio_jax import parallel
from sam_audio_jax.bounds import Checked, Range, Size
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.embed import sinusoid
from sam_audio_jax.nn.linear import linear, product
from sam_audio_jax.separator.dit import Dit, DitConfig
from sam_audio_jax.separator.frame_prompts import AlignVideo, EmbedAnchors
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.separator.representation_alignment import AlignmentHead


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparatorConfig(Checked, where="separator"):
    """The sizes of the transformer and of its conditions; the defaults are `small`."""

    dit: DitConfig = dataclasses.field(default_factory=DitConfig)
    channels: Size = 128  # of the codec's latents; the state holds twice this, target then residual
    text_width: Size = 768
    video_width: Size = 1024
    # Kinds of anchor: null, +, -; padding comes on top.
    anchors: Annotated[int, Range(3, 1_000)] = 3
    anchor_width: Size = 128


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedConditions:
    """The part of the network that does not depend on the flow time, computed once per solve."""

    frames: Float[
        Array, "batch frames width"
    ]  # mixture, video and anchors, to be added to the state
    memory: Float[Array, "batch tokens width"] | None
    memory_mask: Bool[Array, "batch tokens"] | None
    valid: Bool[Array, "batch frames"] | None


class InputProjection(nnx.Module):
    """The reference's `Linear(6C -> width)` on `[state 2C, zeros 2C, mixture twice]`.

    The stored kernel keeps its 6C rows so that checkpoints fit; the product with the zeros is left
    out, and the mixture is multiplied once, by the sum of the kernels of its two copies.
    """

    def __init__(self, channels: int, width: int, *, dtype: str, rngs: nnx.Rngs):
        self.channels, self.dtype = channels, dtype
        init = jax.nn.initializers.variance_scaling(
            1.5, "fan_in", "truncated_normal"
        )  # 4C live rows
        self.kernel = nnx.Param(
            init(rngs.params(), (6 * channels, width)), **parallel.axes("channels", "embed")
        )
        self.bias = nnx.Param(jnp.zeros(width), **parallel.axes("embed"))

    def state(
        self, noisy: Float[Array, "batch frames state"]
    ) -> Float[Array, "batch frames width"]:
        """The part that changes at every step of the solver."""
        kernel = self.kernel[...][: 2 * self.channels]
        return product(noisy.astype(self.dtype), kernel.astype(self.dtype))

    def mixture(
        self, latents: Float[Array, "batch frames channels"]
    ) -> Float[Array, "batch frames width"]:
        """The part that does not change, with the bias."""
        first, second = jnp.split(self.kernel[...][4 * self.channels :], 2)
        twice = (first + second).astype(self.dtype)
        return product(latents.astype(self.dtype), twice) + self.bias[...].astype(self.dtype)


def project_text(config: SeparatorConfig, *, rngs: nnx.Rngs) -> nnx.Linear:
    """The projection of the text encoder's states to the width of the transformer."""
    return linear(
        config.text_width,
        config.dit.width,
        ("channels", "embed"),
        dtype=config.dit.dtype,
        bias=True,
        rngs=rngs,
    )


class Separator(nnx.Module):
    """Callers `prepare` conditions once, then need only `velocity` at every step of the solver."""

    def __init__(self, config: SeparatorConfig, *, rngs: nnx.Rngs):
        width, dtype = config.dit.width, config.dit.dtype
        self.config = config
        self.project = InputProjection(config.channels, width, dtype=dtype, rngs=rngs)
        self.align_video = AlignVideo(config.video_width, width, dtype=dtype, rngs=rngs)
        self.embed_anchors = EmbedAnchors(
            config.anchors, config.anchor_width, width, dtype=dtype, rngs=rngs
        )
        self.project_text = project_text(config, rngs=rngs)
        self.dit = Dit(config.dit, 2 * config.channels, rngs=rngs)

    @property
    def reads_video(self) -> bool:
        """Whether a video changes the velocity; without training on videos the gate stays at 0."""
        return bool(np.any(np.asarray(self.align_video.gate[...])))

    def prepare(self, conditions: Conditions) -> PreparedConditions:
        """Computes what stays the same from one evaluation to the next."""
        frames = self.project.mixture(conditions.mixture)
        if conditions.video is not None:
            frames = frames + self.align_video(conditions.video)
        if conditions.anchors is not None:
            frames = frames + self.embed_anchors(conditions.anchors)
        frames = parallel.constrain(frames, "batch", "frames", "width")
        memory = None if conditions.text is None else self.project_text(conditions.text)
        if memory is not None:
            memory = parallel.constrain(memory, "batch", "tokens", "width")
        mask = None if memory is None else conditions.text_mask
        return PreparedConditions(
            frames=frames, memory=memory, memory_mask=mask, valid=conditions.valid
        )

    def velocity(
        self,
        noisy: Float[Array, "batch frames state"],
        time: Float[Array, " batch"],
        prepared: PreparedConditions,
        *,
        step_size: Float[Array, " batch"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch frames state"]:
        """dx/dt at state `noisy` (channels `[target, residual]`) and time in [0, 1], float32.

        Of a model for few steps the mean velocity over a step of `step_size` from that time.
        """
        layer = self.config.dit.depth
        return self.with_hidden(
            noisy, time, prepared, layer=layer, step_size=step_size, dropout_key=dropout_key
        )[0]

    def with_hidden(
        self,
        noisy: Float[Array, "batch frames state"],
        time: Float[Array, " batch"],
        prepared: PreparedConditions,
        *,
        layer: int,
        step_size: Float[Array, " batch"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch frames state"], Float[Array, "batch frames width"]]:
        """The velocity, and the transformer's state after `layer` blocks."""
        x = self.project.state(noisy) + prepared.frames
        memory = sinusoid(time, self.config.dit.width)[:, None].astype(x.dtype)
        memory = memory if prepared.memory is None else prepared.memory + memory
        return self.dit.with_hidden(
            x,
            time,
            memory,
            layer=layer,
            step_size=step_size,
            valid=prepared.valid,
            memory_mask=prepared.memory_mask,
            key=dropout_key,
        )

    def __call__(
        self,
        noisy: Float[Array, "batch frames state"],
        time: Float[Array, " batch"],
        conditions: Conditions,
        *,
        step_size: Float[Array, " batch"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch frames state"]:
        prepared = self.prepare(conditions)
        return self.velocity(noisy, time, prepared, step_size=step_size, dropout_key=dropout_key)


class PromptedSeparator(nnx.Module):
    """The networks that training optimises and checkpoints hold: text encoder and separator.

    Training may add an alignment head; a model that is loaded from a checkpoint has none.
    """

    alignment: AlignmentHead | None = None

    def __init__(self, text: T5Config, separator: SeparatorConfig, *, rngs: nnx.Rngs):
        if text.width != separator.text_width:
            raise UserError(
                f"text.width={text.width} must equal separator.text_width={separator.text_width}"
            )
        self.text_encoder = T5Encoder(text, rngs=rngs)
        self.separator = Separator(separator, rngs=rngs)
