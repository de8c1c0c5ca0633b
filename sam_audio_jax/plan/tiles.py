"""Sizes of the transformer that do not fill the tiles of a chip's matrix unit.

A product runs as if each of its sides were rounded up to the next multiple of the tile, 256 on v6e
and 128 before, so a size between two multiples costs what the larger one does.
"""

import dataclasses

from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan.chips import Slice
from sam_audio_jax.plan.estimate import mesh_sizes
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.train.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Misfit:
    """A size that is no multiple of the tile."""

    field: str  # how it is called in the config
    value: int  # on one chip
    whole: int  # in the config; more than `value` where the mesh splits it
    tile: int
    share: float  # of the operations of a step in products with this side

    @property
    def rounded(self) -> int:
        """The next multiple of the tile."""
        return -(-self.value // self.tile) * self.tile

    @property
    def cost(self) -> float:
        """By how much of itself the step's work grows, roughly."""
        return self.share * (self.rounded / self.value - 1)


def misfits(config: TrainConfig, mesh: MeshConfig, target: Slice) -> list[Misfit]:
    """The width, head size and hidden size of the transformer that no multiple of the tile are."""
    dit = config.separator.dit
    tensor = mesh_sizes(mesh, target.size)["tensor"]
    tile = target.chip.tile
    shares = _shares(config)
    sizes = {
        "width": (dit.width, dit.width),
        "width / heads": (dit.head_dim, dit.head_dim),
        "mlp": (dit.mlp // tensor, dit.mlp),
    }
    return [
        Misfit(field=f"dit.{field}", value=value, whole=whole, tile=tile, share=shares[field])
        for field, (value, whole) in sizes.items()
        if value % tile
    ]


def _shares(config: TrainConfig) -> dict[str, float]:
    """The shares of a block's operations in products that have such a side (docs/model.md)."""
    dit: DitConfig = config.separator.dit
    frames = config.data.mix.seconds * config.codec.frame_rate
    tokens = config.data.prompts.text_tokens
    projections = 6 * frames * dit.width**2 + 2 * tokens * dit.width**2
    scores = 2 * frames * (frames + tokens) * dit.width
    hidden = 3 * frames * dit.width * dit.mlp
    whole = projections + scores + hidden
    return {
        "width": (projections + hidden) / whole,
        "width / heads": scores / whole,
        "mlp": hidden / whole,
    }
