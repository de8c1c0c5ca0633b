"""Where a separator that is trained has its weights from: another model, sizes compared.

What a start may lack is made: the head of the alignment, the embedding of step sizes, further
blocks (docs/training.md, "Few steps" and "More blocks").
"""

import sys

import jax
from flax import nnx
from jaxtyping import PyTree

from sam_audio_jax import parallel
from sam_audio_jax.config import misfit
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn import lora
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.block_expansion import expand_blocks
from sam_audio_jax.separator.dit import StepSizeEmbedding
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.config import TrainConfig

TEXT_SIZES = ("vocab_size", "width", "depth", "heads", "head_dim", "mlp", "buckets")
SEPARATOR_SIZES = ("channels", "text_width", "video_width", "anchors", "anchor_width")
DIT_SIZES = (
    *("depth", "width", "heads", "mlp", "frequency_width"),
    *("qk_norm", "context_norm", "step_size"),
)


def start_weights(
    start: PromptedSeparator, config: TrainConfig, like: PyTree, alignment: nnx.Module | None
) -> PyTree:
    """The weights of a start as those of a run, which has the shapes and shardings of `like`.

    `alignment` is the run's head, which is always new. Where the run has more blocks, copies of
    those of the start that add nothing stand among them; a note says so. Raises `UserError` for a
    start of other sizes, with more blocks, or that reckons otherwise.
    """
    weights = nnx.as_pure(nnx.state(start))
    if alignment is not None:
        weights["alignment"] = nnx.as_pure(nnx.state(alignment))
    ours, theirs = config.separator.dit, start.separator.config.dit
    transformer = weights["separator"]["dit"]
    if ours.step_size and not theirs.step_size:
        step_size = parallel.init_sharded(lambda: StepSizeEmbedding(ours, rngs=Rngs(config.seed)))
        transformer["step_size"] = nnx.as_pure(nnx.state(step_size))
    if ours.depth > theirs.depth:
        transformer["blocks"] = expand_blocks(transformer["blocks"], ours.depth)
    fitted = _fitted(weights, like, start, config)
    if ours.depth > theirs.depth:
        print(
            f"note: init_from={config.init_from} has {theirs.depth} blocks; "
            f"{ours.depth - theirs.depth} copies of them, which add nothing at first, make "
            f"separator.dit.depth={ours.depth}",
            file=sys.stderr,
        )
    return fitted


def base_weights(start: PromptedSeparator, config: TrainConfig, like: PyTree) -> PyTree:
    """The weights of a start as those that adapters stand beside; raises as `start_weights`."""
    _, weights = lora.split_factors(nnx.as_pure(nnx.state(start)))
    return _fitted(weights, like, start, config)


def _fitted(weights: PyTree, like: PyTree, start: PromptedSeparator, config: TrainConfig) -> PyTree:
    """The weights of a start, sharded as those of the run.

    Raises `UserError` for a start of other shapes, or that reckons otherwise in the same.
    """
    ours, theirs = config.separator.dit, start.separator.config.dit
    if theirs.depth > ours.depth:
        raise UserError(
            f"init_from={config.init_from} has {theirs.depth} blocks, more than "
            f"separator.dit.depth={ours.depth}: blocks can be added, none removed"
        )
    if jax.tree.map(lambda x: x.shape, weights) != jax.tree.map(lambda x: x.shape, like):
        raise UserError(
            f"init_from={config.init_from} has another text encoder or separator than the config: "
            + _other_sizes(start, config)
        )
    names = ["heads", "qk_norm", "norm_eps"] + ["max_positions"] * (ours.theta != theirs.theta)
    wrong = [misfit(ours, theirs, names)]
    if config.text.depth:
        sizes = ("heads", "head_dim", "buckets", "max_distance", "eps")
        wrong.append(misfit(config.text, start.text_encoder.config, sizes))
    if differing := "; ".join(filter(None, wrong)):
        raise UserError(f"init_from={config.init_from} has {differing}")
    return jax.device_put(weights, jax.tree.map(lambda leaf: leaf.sharding, like))


def _other_sizes(start: PromptedSeparator, config: TrainConfig) -> str:
    """The sizes of text encoder and separator that differ, for a message."""
    wanted, found = config.separator, start.separator.config
    parts = {
        "text": misfit(config.text, start.text_encoder.config, TEXT_SIZES),
        "separator": misfit(wanted, found, SEPARATOR_SIZES),
        "separator.dit": misfit(wanted.dit, found.dit, DIT_SIZES),
    }
    return "; ".join(f"{part}: {differing}" for part, differing in parts.items() if differing)
