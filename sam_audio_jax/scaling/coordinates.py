"""The coordinate check: how far some training steps move what the network computes, by its width.

    python -m sam_audio_jax.scaling.coordinates tiny

Under muP the movement is the same at every width; under the standard parametrisation it grows, and
with it the risk that a rate which was found at a small width diverges (arXiv 2203.03466, appendix
D). Both kinds start from the same random numbers, and their factors are those of the training
(`train/parametrisation.py`); so are clipping, Adam and the loss, on one batch of random latents.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from sam_audio_jax import config as configs
from sam_audio_jax import parallel
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scaling.sizes import resized
from sam_audio_jax.separator.flow import masked_mse, path_at
from sam_audio_jax.separator.model import Separator
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.train.config import ParametrisationConfig, TrainConfig
from sam_audio_jax.train.parametrisation import factors

ROWS, FRAMES, TOKENS = 4, 8, 4
KINDS = ("standard", "mup")
WIDTHS = (32, 64, 128, 256)


def movements(
    config: TrainConfig, widths: Sequence[int] = WIDTHS, *, steps: int = 4
) -> dict[str, Float[np.ndarray, "widths steps"]]:
    """Kind of parametrisation -> root mean square change of the velocity since the start.

    The rate is `optim.peak_lr` from the first step on. The smallest width is the base of muP, where
    both kinds are one.
    """
    base = resized(config, widths[0]).separator.dit
    moved = [
        _at_width(resized(config, width), base.width, base.head_dim, steps) for width in widths
    ]
    return {kind: np.array([one[kind] for one in moved]) for kind in KINDS}


def growth(widths: Sequence[int], moved: np.ndarray) -> float:
    """The power of the width by which the movement after the last step grows: 0 is flat."""
    return float(np.polyfit(np.log(widths), np.log(moved[:, -1]), 1)[0])


def _at_width(config: TrainConfig, base: int, head_dim: int, steps: int) -> dict[str, list[float]]:
    """The movements at the config's width: one program for all kinds, whose factors are inputs."""
    dit = dataclasses.replace(config.separator.dit, dropout=0.0, context_dropout=0.0)
    sizes = dataclasses.replace(config.separator, dit=dit)
    network = parallel.init_sharded(lambda: Separator(sizes, rngs=Rngs(config.seed)))
    graph, state = nnx.split(network)
    start = {"separator": nnx.as_pure(state)}
    optim = config.optim
    tx = optax.chain(
        optax.clip_by_global_norm(optim.clip_norm),
        optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2, eps=optim.eps),
    )
    moments = tx.init(start)
    batch = _batch(config)

    @jax.jit
    def step(params: PyTree, moments: PyTree, rates: PyTree) -> tuple[Array, PyTree, PyTree]:
        def loss(params: PyTree) -> tuple[Array, Array]:
            return _loss(nnx.merge(graph, params["separator"]), batch, config)

        (_, velocity), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = tx.update(grads, moments, params)
        moved = jax.tree.map(lambda old, step, rate: old - rate * step, params, updates, rates)
        return velocity, moved, moments

    moved = {}
    for kind in KINDS:
        chosen = ParametrisationConfig(kind=kind, base_width=base, base_head_dim=head_dim)
        initial, rates = (_factor_tree(start, chosen, config, number) for number in (0, 1))
        rates = jax.tree.map(lambda rate: optim.peak_lr * rate, rates)
        params, now = _times(start, initial), moments
        seen = []
        for _ in range(steps + 1):
            velocity, params, now = step(params, now, rates)
            seen.append(np.asarray(velocity))
        moved[kind] = [float(np.sqrt(np.mean((one - seen[0]) ** 2))) for one in seen[1:]]
    return moved


def _times(tree: PyTree, by: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, factor: leaf * factor, tree, by)


def _factor_tree(
    params: PyTree, kind: ParametrisationConfig, config: TrainConfig, number: int
) -> PyTree:
    """The initial factors (0) or the rates (1) of all parameters."""

    def of(path: tuple[Any, ...], leaf: Array) -> np.ndarray:
        del leaf
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        standard = kind.kind == "standard"
        value = 1.0 if standard else factors(name, kind, config.separator.dit)[number]
        return np.asarray(value, np.float32)

    return jax.tree_util.tree_map_with_path(of, params)


@functools.lru_cache(maxsize=4)
def _batch(config: TrainConfig) -> dict[str, np.ndarray]:
    """One batch of random latents, noise, text vectors and anchors: the same at every width."""
    rng = np.random.default_rng(0)
    channels = config.separator.channels

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((ROWS, *shape), np.float32)

    return {
        "mixture": normal(FRAMES, channels),
        "data": normal(FRAMES, 2 * channels),
        "noise": normal(FRAMES, 2 * channels),
        "text": normal(TOKENS, config.separator.text_width),
        "anchors": rng.integers(0, 3, (ROWS, FRAMES), dtype=np.int32),
    }


def _loss(
    separator: Separator, batch: dict[str, np.ndarray], config: TrainConfig
) -> tuple[Array, Array]:
    """The flow's loss at four times, and the velocity."""
    valid = jnp.ones((ROWS, FRAMES), bool)
    conditions = Conditions.build(
        mixture=jnp.asarray(batch["mixture"]),
        text=jnp.asarray(batch["text"]),
        text_mask=jnp.ones((ROWS, TOKENS), bool),
        anchors=jnp.asarray(batch["anchors"]),
        video=None,
        video_width=config.separator.video_width,
        valid=valid,
    )
    time = jnp.linspace(0.1, 0.9, ROWS)
    data, noise = jnp.asarray(batch["data"]), jnp.asarray(batch["noise"])
    noisy, wanted = path_at(data, noise, time, config.flow)
    velocity = separator(noisy, time, conditions)
    return masked_mse(velocity, wanted, valid), velocity


def main(argv: list[str]) -> None:
    """Prints the movements at four widths."""
    config = configs.from_cli(argv, TrainConfig)
    for kind, moved in movements(config).items():
        print(f"{kind}: grows as width to the power {growth(WIDTHS, moved):.2f}")
        for width, row in zip(WIDTHS, moved, strict=True):
            print(f"  {width:5d}  " + "  ".join(f"{value:.4f}" for value in row))


if __name__ == "__main__":
    main(sys.argv[1:])
