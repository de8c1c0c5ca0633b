"""Checkpoints of a run: saved in the background, whole or not at all (Orbax).

One checkpoint is `checkpoints/STEP/` with the items params, ema and rest (moments, step, key), each
a folder of its own, so that who wants only parameters reads only those. Config, counters and the
position of the data are its metadata. `convert.workdir` reads parameters out of it.
"""

import dataclasses
import json
import logging
import os
import pathlib
import types
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint.experimental.v1 as ocp
from jaxtyping import PyTree

from sam_audio_jax.convert.workdir import read_scores
from sam_audio_jax.train.config import CheckpointConfig
from sam_audio_jax.train.step import TrainState

_keep = ocp.training.preservation_policies


@dataclasses.dataclass
class _KeepBest(_keep.PreservationPolicy):
    """Keeps the checkpoints with the best scores; a score may come after its checkpoint."""

    scores: dict[int, float]
    count: int
    highest: bool

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: _keep.PreservationContext
    ) -> Sequence[bool]:
        del context
        scored = [info.step for info in checkpoints if info.step in self.scores]
        ranked = sorted(scored, key=self.scores.__getitem__, reverse=self.highest)
        return [info.step in ranked[: self.count] for info in checkpoints]


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager: leaving it finishes the last save.

    All processes of a multi-host run make the same calls in the same order.
    """

    def __init__(self, workdir: str | os.PathLike, config: CheckpointConfig):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells users what is ours to know
        self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
        self._score_file = self.folder.parent / "scores.json"
        self._scores = read_scores(self.folder.parent)
        policies: list[Any] = [_keep.LatestN(config.keep_last)]
        if config.best_metric and config.keep_best:
            highest = config.best_is == "highest"
            policies.append(_KeepBest(self._scores, config.keep_best, highest))
        if config.keep_every:
            policies.append(_keep.EveryNSteps(config.keep_every))
        keep: Any = _keep.AnyPreservationPolicy(policies)
        self._orbax = ocp.training.Checkpointer(
            str(self.folder),
            preservation_policy=keep,
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._orbax.close()

    @property
    def steps(self) -> list[int]:
        """The steps there are, in order; those being written are not among them."""
        return sorted(info.step for info in self._orbax.checkpoints)

    def save(self, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts a save in the background; the state may be donated as soon as this returns.

        `metadata` is plain JSON. A step that is saved already is left as it is.
        """
        step = int(state.step)
        self._orbax.wait()
        if step not in self.steps:
            self._orbax.save_checkpointables_async(
                step, _items(state), force=True, custom_metadata=metadata
            )

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint as `(state, metadata)`, None if there is none.

        `like` gives shapes, dtypes and shardings.
        """
        latest = self._orbax.latest
        if latest is None:
            return None
        found = self._orbax.load_checkpointables(latest.step, _abstract(_items(like)))
        metadata: Any = self._orbax.metadata(latest.step).custom_metadata
        rest = found["rest"]
        key = jax.random.wrap_key_data(rest["key"])
        state = TrainState(rest["step"], found["params"], found["ema"], rest["opt_state"], key)
        return state, dict(metadata or {})

    def record_score(self, step: int, score: float) -> None:
        """Remembers how well a step did; the best are kept from the next save on."""
        self._scores[step] = score
        if jax.process_index() == 0:
            partial = self._score_file.with_suffix(".partial")
            partial.write_text(json.dumps(self._scores))
            partial.replace(self._score_file)

    def wait(self) -> None:
        """Until the save under way is on disk."""
        self._orbax.wait()


def _items(state: TrainState) -> dict[str, PyTree]:
    key = jax.random.key_data(state.key)
    rest = {"opt_state": state.opt_state, "step": state.step, "key": key}
    return {"params": state.params, "ema": state.ema, "rest": rest}


def _abstract(tree: PyTree) -> Any:
    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(shape, tree)
