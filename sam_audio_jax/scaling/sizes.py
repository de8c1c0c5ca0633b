"""Sizes of the transformer by one rule, from 0.1 M to 3 B parameters.

A width gives all else: blocks and heads are one for each 128 of the width, at least four, and the
hidden size of the feed-forward is 8/3 of the width, rounded up to a multiple of 64 (of 8 below a
width of 512). So heads are 128 wide from a width of 512 on. Widths of 1536, 2048 and 2816 give the
paper's small, base and large exactly (arXiv 2512.18099, table 12).
"""

import dataclasses
import functools
import math

import jax
from flax import nnx

from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig
from sam_audio_jax.train.config import TrainConfig

HEAD_DIM = 128  # of the paper's sizes
LEAST_DEPTH = 4  # fewer blocks would be another kind of network


def of_width(width: int, like: DitConfig) -> DitConfig:
    """The transformer of a width, by the rule; all that is no size is as in `like`.

    Raises `UserError` for a width that the heads do not divide.
    """
    full = HEAD_DIM * LEAST_DEPTH
    multiple = HEAD_DIM if width >= full else 2 * LEAST_DEPTH
    if width < multiple or width % multiple:
        raise UserError(
            f"width {width} must be a multiple of {2 * LEAST_DEPTH} below {full}, and of "
            f"{HEAD_DIM} from there on"
        )
    depth = max(LEAST_DEPTH, width // HEAD_DIM)
    step = 64 if width >= full else 8
    mlp = step * math.ceil(8 * width / (3 * step))
    return dataclasses.replace(like, width=width, depth=depth, heads=depth, mlp=mlp)


def resized(config: TrainConfig, width: int) -> TrainConfig:
    """The training of another width; a loop that was unrolled stays so."""
    dit = config.separator.dit
    sized = of_width(width, dit)
    if dit.unroll == dit.depth > 1:
        sized = dataclasses.replace(sized, unroll=sized.depth)
    return dataclasses.replace(config, separator=dataclasses.replace(config.separator, dit=sized))


@functools.lru_cache(maxsize=64)
def parameters(config: SeparatorConfig) -> int:
    """N: every parameter of the separator, the projections of its conditions too.

    Codec, text encoder, teacher and alignment head are not counted: they are the same in all sizes.
    """
    abstract = nnx.eval_shape(lambda: Separator(config, rngs=Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))
