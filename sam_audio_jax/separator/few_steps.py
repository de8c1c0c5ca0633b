"""Self-consistency of models for few steps: one step of a size is two of half of it.

Shortcut models (arXiv 2410.12557); docs/training.md, "Few steps". No derivative of the network by
its inputs is needed, so every attention kernel works.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.flow import FlowConfig

# (state, time [batch], step size [batch]) -> mean velocity over the step
MeanVelocity = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class ConsistentRows:
    """The rows of a batch that are self-consistent: the first `count` of each of its shards.

    Each device has as many, so that none waits for another one.
    """

    shards: int
    count: int

    @classmethod
    def of(cls, batch: int, share: float, shards: int) -> "ConsistentRows":
        """A share of a batch. Raises `UserError` where that is no row of a shard, or all."""
        rows = batch // shards
        count = round(share * rows)
        if not 0 < count < rows:
            raise UserError(
                f"flow.consistency_share={share} of {rows} rows of a batch shard is {count}: it "
                "must leave rows to both objectives"
            )
        return cls(shards, count)

    def take(self, x: Shaped[Array, "batch ..."]) -> Shaped[Array, "rows ..."]:
        """These rows."""
        return self._by_shard(x)[:, : self.count].reshape(-1, *x.shape[1:])

    def put(
        self, x: Shaped[Array, "batch ..."], rows: Shaped[Array, "rows ..."]
    ) -> Shaped[Array, "batch ..."]:
        """The batch with others in their place."""
        kept = self._by_shard(x)[:, self.count :]
        return jnp.concatenate([self._by_shard(rows), kept], axis=1).reshape(x.shape)

    def _by_shard(self, x: Array) -> Array:
        return x.reshape(self.shards, -1, *x.shape[1:])


def draw_steps(
    key: Key[Array, ""], rows: int, config: FlowConfig
) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
    """Where steps begin and their sizes: 1, 1/2, ... 2/finest, each as often, on its own grid."""
    size_key, time_key = jax.random.split(key)
    levels = config.finest_steps.bit_length() - 1
    steps = 2.0 ** jax.random.randint(size_key, (rows,), 0, levels)
    return jnp.floor(steps * jax.random.uniform(time_key, (rows,))) / steps, 1 / steps


def with_consistency(
    velocity: MeanVelocity,
    noisy: Float[Array, "batch frames channels"],
    time: Float[Array, " batch"],
    wanted: Float[Array, "batch frames channels"],
    rows: ConsistentRows,
    key: Key[Array, ""],
    config: FlowConfig,
) -> tuple[
    Float[Array, "batch frames channels"],
    Float[Array, " batch"],
    Float[Array, "batch frames channels"],
    Float[Array, " batch"],
]:
    """A batch of `draw_path` in which some rows are to agree with two steps of half their size.

    Returns states, times, what the velocity is to be there, and the step sizes, 0 in the other
    rows. `velocity` is the network of now on these rows, without dropout; no gradient passes it.
    """
    mine, straight = rows.take(noisy), rows.take(wanted)
    begin, size = draw_steps(key, mine.shape[0], config)
    half = size / 2
    # The finest steps are those of the flow itself.
    input_size = jnp.where(half <= 1 / config.finest_steps, 0.0, half)
    # The path is straight: its state at another time follows from the velocity.
    state = mine + (begin - rows.take(time))[:, None, None] * straight
    first = velocity(state, begin, input_size)
    second = velocity(state + half[:, None, None] * first, begin + half, input_size)
    mean = jax.lax.stop_gradient((first + second) / 2)
    return (
        rows.put(noisy, state),
        rows.put(time, begin),
        rows.put(wanted, mean),
        rows.put(jnp.zeros_like(time), size),
    )
