"""The flow-matching loss on held-out mixtures: a number for each domain, which runs can compare.

The draws are fixed: item `i` has at each of `TIMES` the noise of (`SEED`, i, time), and its text is
its prompt, never dropped. So weights have the same loss on every mesh, to the rounding of float32,
and of two runs the one with the lower loss predicts the velocity better. The rows of a step are
sharded over all devices of all processes. Each item counts once; rows that pad the last step and
frames after an item's end do not count.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec, frame_count
from sam_audio_jax.data.prompter import tokenize
from sam_audio_jax.separator.flow import FlowConfig, item_mse, path_at
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.prompts import Conditions, batch_anchors, valid_frames
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.loop import to_devices
from sam_audio_jax.train.objective import STEMS, make_model, to_latents, whole_params
from sam_audio_jax.train.step import TrainState

TIMES = (0.125, 0.375, 0.625, 0.875)  # the middles of four equal parts of the flow time
SEED = 0  # of the noise; not of the run, so that runs can be compared
ROWS = 8  # items of a step, or one for each data-parallel device

_Wave = Float32[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class HeldOutItem:
    """A mixture whose stems are known; they are rendered by the process that has its row."""

    domain: str  # as the fixed mixtures call it: speech, music, sfx, ...
    text: str  # prompt of the target
    seconds: float
    stems: Callable[[], tuple[_Wave, _Wave]]  # target and residual at the codec's rate


class HeldOutLoss:
    """`HeldOutLoss(...)(state)` is the loss of a state; all processes of a run call both."""

    def __init__(self, config: TrainConfig, codec: Codec, mesh: Mesh, items: Sequence[HeldOutItem]):
        """Encodes the items; the latents stay on the devices that use them."""
        self.mesh, self.domains = mesh, [item.domain for item in items]
        shards = parallel.batch_axis_size(mesh)
        rows = shards * -(-ROWS // shards)
        batches = _Batches(config, items, rows, parallel.process_rows(mesh))
        graph, abstract = nnx.split(codec)
        weights = jax.device_put(nnx.as_pure(abstract), parallel.replicated(mesh))
        rows_of = parallel.batch_sharding(mesh)

        def encode(weights: PyTree, waves: dict[str, Array]) -> dict[str, Array]:
            return dict(zip(STEMS, to_latents(nnx.merge(graph, weights), waves), strict=True))

        self._batches = []
        with jax.set_mesh(mesh):
            jitted = jax.jit(encode, out_shardings=rows_of)
            for number in range(-(-len(items) // rows)):
                batch = to_devices(batches[number], mesh)
                waves = {name: batch.pop(name) for name in STEMS}
                self._batches.append(batch | jitted(weights, waves))
        prompted = nnx.graphdef(nnx.eval_shape(lambda: make_model(config)))
        video_width = config.separator.video_width

        def loss(params: PyTree, batch: dict[str, Array]) -> Float[Array, " batch"]:
            return _item_losses(nnx.merge(prompted, params), batch, config.flow, video_width)

        self._loss = jax.jit(loss, out_shardings=parallel.replicated(mesh))

    def __call__(self, state: TrainState, frozen: PyTree = None) -> dict[str, float]:
        """`flow_loss/live/DOMAIN` and `flow_loss/averaged/DOMAIN`, and of `all` items.

        `frozen` are the frozen weights of the run, of which it needs the base of adapters.
        """
        scores = {}
        for name, trained in (("live", state.params), ("averaged", state.ema)):
            params = whole_params(trained, frozen or {})
            for domain, loss in self.by_domain(params).items():
                scores[f"flow_loss/{name}/{domain}"] = loss
        return scores

    def by_domain(self, params: PyTree) -> dict[str, float]:
        """The mean over the items of each domain, and of all."""
        with jax.set_mesh(self.mesh):
            losses = [np.asarray(self._loss(params, batch)) for batch in self._batches]
        rows: dict[str, list[float]] = collections.defaultdict(list)
        own = np.concatenate(losses)[: len(self.domains)].astype(np.float64)
        for domain, loss in zip(self.domains, own, strict=True):
            rows[domain].append(loss)
            rows["all"].append(loss)
        return {domain: float(np.mean(values)) for domain, values in sorted(rows.items())}


class _Batches:
    """This process's rows of each step, padded to the frames of the longest item of all."""

    def __init__(
        self, config: TrainConfig, items: Sequence[HeldOutItem], rows: int, share: tuple[int, int]
    ):
        self.config, self.items, self.rows = config, items, rows
        self.index, self.count = share
        codec = config.codec
        self.sizes = [
            frame_count(round(item.seconds * codec.sample_rate), codec.hop) for item in items
        ]

    def __getitem__(self, number: int) -> dict[str, Any]:
        prompts, codec = self.config.data.prompts, self.config.codec
        own = self.rows // self.count
        first = number * self.rows + self.index * own
        # Rows that are left over repeat the last item; their losses are dropped.
        numbers = [min(n, len(self.items) - 1) for n in range(first, first + own)]
        items, sizes = [self.items[n] for n in numbers], [self.sizes[n] for n in numbers]
        frames = max(self.sizes)
        waves = np.zeros((len(STEMS), own, frames * codec.hop), np.float32)
        for row, item in enumerate(items):
            length = sizes[row] * codec.hop
            for out, stem in zip(waves[1:], item.stems(), strict=True):
                out[row, : len(stem[:length])] = stem[:length]
        waves[0] = waves[1] + waves[2]
        tokens = [tokenize(prompts.tokenizer, i.text, prompts.text_tokens) for i in items]
        return dict(zip(STEMS, waves, strict=True)) | {
            "number": np.asarray(numbers, np.int32),
            "valid": valid_frames(sizes, frames),
            "text_ids": np.concatenate([ids for ids, _ in tokens]),
            "text_mask": np.concatenate([mask for _, mask in tokens]),
            "anchors": batch_anchors(
                [()] * own, sizes, sample_rate=codec.sample_rate, hop=codec.hop, frames=frames
            ),
        }


def _item_losses(
    prompted: PromptedSeparator,
    batch: dict[str, Array],
    flow: FlowConfig,
    video_width: int,
) -> Float[Array, " batch"]:
    """The loss of each item, the mean over `TIMES`."""
    x1 = jnp.concatenate([batch["target"], batch["residual"]], axis=-1)
    conditions = Conditions.build(
        mixture=batch["mixture"],
        text=prompted.text_encoder(batch["text_ids"], batch["text_mask"]),
        text_mask=batch["text_mask"],
        anchors=batch["anchors"],
        video=None,
        video_width=video_width,
        valid=batch["valid"],
    )
    prepared = prompted.separator.prepare(conditions)

    def at(time_number: Int[Array, ""]) -> Float[Array, " batch"]:
        def noise(item: Int[Array, ""]) -> Float[Array, "frames channels"]:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), item), time_number)
            return jax.random.normal(key, x1.shape[1:])

        time = jnp.full(x1.shape[0], jnp.asarray(TIMES)[time_number])
        x0 = parallel.constrain(jax.vmap(noise)(batch["number"]), "batch", "frames", "width")
        noisy, wanted = path_at(x1, x0, time, flow)
        velocity = prompted.separator.velocity(noisy, time, prepared)
        return item_mse(velocity, wanted, batch["valid"])

    return jnp.mean(jax.lax.map(at, jnp.arange(len(TIMES))), axis=0)
