"""Initial values and rates that do not have to be found again for another size: muP for this DiT.

With the standard parametrisation the best rate falls as the transformer grows, because a step of
the optimiser moves each weight by as much as before while more of them add up. muP (arXiv
2203.03466, table 3; for transformers with modulation arXiv 2505.15270) moves the sums alike at
every width. Here it is no other network: each multiplier of a forward pass is folded into the
initial value and the rate of the parameter that it multiplies, which is the same training with
Adam. So checkpoints, shardings, conversion and inference know nothing of it.

Factors, for `w` = width over `base_width`, at which both parametrisations are one:

    parameters                                              initial value          rate
    kernels from width to width, and out of it              1 (by fan-in: 1/n)     1 / w
    zero-initialised map of the time to modulation, output  1 (zero)               1 / w
    kernels from channels, text, video, anchors, time       1                      1
    norms, biases, gates, embeddings                        1                      1
    modulation tables, initialised as 1 / sqrt(width)       sqrt(w)                1
    first kernel of the alignment's head                    1 / sqrt(w)            1 / w
    scores of attention: 1 / head_dim instead of its root, in the query's norm (without one, in
    its kernel), for `h` = head_dim over `base_head_dim`    1 / sqrt(h)            1 / sqrt(h)

`mup_depth` also divides what a block adds by the depth over `base_depth` (CompleteP, arXiv
2505.01618), in the rows of the modulation that are gates and in the output kernel of the ungated
cross-attention, whose initial value falls with the depth in any case.

Weight decay is not scaled: a step decays a weight by `rate * weight_decay` at every width.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import PyTree

from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.train.config import ParametrisationConfig

Factor = float | np.ndarray  # an array multiplies the last axes of a parameter

GATES = np.array([0, 0, 1, 0, 0, 1], bool)  # rows of a block's modulation

# Paths, within the networks that are trained, of kernels that read from the width.
_HIDDEN = re.compile(
    r"separator\.dit\.(time\.project\.down|time\.to_blocks|context\.\w+|patcher\.\w+|out"
    r"|blocks\.(attention|cross_attention|mlp)\.\w+)\.kernel"
    r"|alignment\.first\.kernel"
)


def scale_initial(prompted: nnx.Module, config: ParametrisationConfig, dit: DitConfig) -> None:
    """Brings freshly initialised networks to a parametrisation, in place."""
    if config.kind == "standard":
        return
    for path, node in nnx.iter_graph(prompted):
        if isinstance(node, nnx.Param):
            initial, _ = factors(_joined(path), config, dit)
            if not (np.ndim(initial) == 0 and initial == 1.0):
                node.set_value(node[...] * jnp.asarray(initial, node[...].dtype))


def scale_rates(
    config: ParametrisationConfig, dit: DitConfig
) -> optax.GradientTransformation | None:
    """The transformation of Adam's updates that gives each parameter its rate; None: all alike."""
    if config.kind == "standard":
        return None

    def scaled(updates: PyTree, params: PyTree | None) -> PyTree:
        del params

        def scale(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            _, rate = factors(_joined(path), config, dit)
            return leaf * jnp.asarray(rate, leaf.dtype)

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(scaled)


def factors(path: str, config: ParametrisationConfig, dit: DitConfig) -> tuple[Factor, Factor]:
    """What the initial value and the rate of the parameter at a path are multiplied by."""
    wide = dit.width / config.base_width
    deep = config.base_depth / dit.depth if config.kind == "mup_depth" else 1.0
    sharp = math.sqrt(config.base_head_dim / dit.head_dim)
    hidden = 1 / wide if _HIDDEN.fullmatch(path) else 1.0
    gates = np.where(GATES, deep, 1.0).astype(np.float32)
    scores = "query_norm.scale" if dit.qk_norm else "query.kernel"
    if path.startswith("separator.dit.blocks.") and path.endswith(scores):
        return sharp, sharp * hidden
    match path:
        case "separator.dit.blocks.modulation":
            return math.sqrt(wide) * gates[:, None], gates[:, None]
        case "separator.dit.modulation":
            return math.sqrt(wide), 1.0
        case "separator.dit.time.to_blocks.kernel" | "separator.dit.time.to_blocks.bias":
            return 1.0, hidden * np.repeat(gates, dit.width)
        case "separator.dit.blocks.cross_attention.out.kernel":
            return 1.0, hidden * deep
        case "alignment.first.kernel":
            return 1 / math.sqrt(wide), hidden
    return 1.0, hidden


def _joined(path: tuple[Any, ...]) -> str:
    """The names on a path of a graph or of a tree, joined by dots."""
    return ".".join(str(getattr(entry, "key", entry)) for entry in path)
