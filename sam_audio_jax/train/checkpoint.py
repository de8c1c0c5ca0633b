"""Checkpoints of a run: saved in the background, whole or not at all (Orbax).

One checkpoint is `checkpoints/STEP/` with the items params, ema and rest (state of the optimiser,
step, key), each a folder of its own, so that parameters can be read alone (`convert/load.py`).
Config, counters and the state of the data iterator are its metadata, with a checksum of the items,
as what Orbax writes has none: a bit that flips on disk is another value without it.

Any number of processes, on any mesh, can restore what others saved.
"""

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint.experimental.v1 as ocp
from jaxtyping import PyTree

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.nn.fingerprint import checksum_of
from sam_audio_jax.train.config import CheckpointConfig
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir

_keep = ocp.training.preservation_policies
CHECKSUM = "checksum"  # in the metadata


@dataclasses.dataclass
class _KeepBest(_keep.PreservationPolicy):
    """Keeps the checkpoints with the best scores; a checkpoint is scored after it is saved."""

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
        self._config = config
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax raises what it logs
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of its reads of a damaged file
        self.warnings: list[str] = []  # lines for the user, by `restore_latest`
        self._workdir = Workdir(pathlib.Path(workdir).absolute())
        self.folder = self._workdir.checkpoints
        self._scores = self._read_scores()
        policies: list[Any] = [_keep.LatestN(config.keep_last)]
        if config.best_metric and config.keep_best:
            highest = config.best_is == "highest"
            policies.append(_KeepBest(self._scores, config.keep_best, highest))
        if config.keep_every:
            policies.append(_keep.EveryNSteps(config.keep_every))
        keep: Any = _keep.AnyPreservationPolicy(policies)
        try:
            self._orbax = ocp.training.Checkpointer(
                str(self.folder),
                preservation_policy=keep,
                cleanup_tmp_directories=True,
            )
        except ValueError as error:  # Orbax reads the metadata of all of them, and names none
            raise UserError(
                f"the metadata of a checkpoint in {self.folder} is damaged ({_reason(error)}): "
                "move the newest ones elsewhere until the run starts"
            ) from None

    def _read_scores(self) -> dict[int, float]:
        """The scores by which the best checkpoints are kept, with warnings of what is no such."""
        workdir, metric, is_whole = self._workdir, self._config.best_metric, True
        try:
            workdir.read_scores()
        except UserError as error:
            is_whole = False
            self.warnings.append(
                f"warning: {error}: the scores are those in {workdir.metrics_file}"
            )
        if others := workdir.scores_left_out(metric, read_file=is_whole):
            self.warnings.append(
                f"warning: the scores of {others} were measured otherwise: the best checkpoint is "
                "chosen from the evaluations to come"
            )
        return workdir.scores_of(metric, read_file=is_whole)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if error is None:
            with self._writing():
                self._orbax.close()
        elif jax.process_count() == 1:  # several would wait for each other here
            with contextlib.suppress(Exception):
                self._orbax.close()

    @property
    def steps(self) -> list[int]:
        """The steps with a whole checkpoint, in order."""
        return sorted(info.step for info in self._orbax.checkpoints)

    def save(self, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts a save in the background; the state may be donated as soon as this returns.

        `metadata` is plain JSON. A step that is saved already is left as it is. Raises `UserError`
        when this save or the one before could not be written.
        """
        step = int(state.step)
        self.wait()
        if step not in self.steps:
            items = _items(state)
            metadata = metadata | {CHECKSUM: _checksum(items)}
            with self._writing():
                self._orbax.save_checkpointables_async(
                    step, items, force=True, custom_metadata=metadata
                )

    def restore_latest(
        self, like: TrainState, check: Callable[[dict[str, Any]], object] = len
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest readable checkpoint as `(state, metadata)`, None without any checkpoint.

        `like` gives shapes, dtypes and shardings; `check` raises for metadata that nothing can be
        done with. Newer ones that are damaged move to
        WORKDIR/unreadable, with a line in `warnings`. Raises `UserError` when all are damaged.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps):
            restored, reason = self._load(step, like, check)
            if not distributed.all_processes(restored is not None):
                damaged[step] = reason or "another process could not read it"
                continue
            assert restored is not None
            state, metadata = restored
            saved = metadata.pop(CHECKSUM, None)  # an earlier version wrote none
            if saved is None or saved == _checksum(_items(state)):
                self._set_aside(damaged, step)
                return restored
            damaged[step] = "its values have another checksum than those that were saved"
        if damaged:
            newest = max(damaged)
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self.folder} can be read; "
                f"{newest}: {damaged[newest]}"
            )
        return None

    def _load(
        self, step: int, like: TrainState, check: Callable[[dict[str, Any]], object]
    ) -> tuple[tuple[TrainState, dict[str, Any]] | None, str]:
        """The checkpoint, or None and the reason why it cannot be read.

        Each process reads for itself, so that none waits for another that failed.
        """
        rank = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=rank, active_processes={rank}, barrier_sync_key_prefix=f"process{rank}"
        )
        context = ocp.Context(multiprocessing_options=alone)
        one = jax.process_count() == 1
        try:
            with contextlib.nullcontext() if one else context, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about coroutines that a failure leaves behind
                items = ocp.load_checkpointables(
                    str(self.folder / str(step)), _abstract(_items(like))
                )
            metadata: Any = self._orbax.metadata(step).custom_metadata
            if not metadata:
                raise ValueError("_CHECKPOINT_METADATA is damaged")
            try:
                check(dict(metadata))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"its metadata is damaged: {first_line(error)}") from None
        except Exception as error:  # Orbax raises many kinds for damaged files
            return None, _reason(error)
        rest = items["rest"]
        key = jax.random.wrap_key_data(rest["key"])
        state = TrainState(rest["step"], items["params"], items["ema"], rest["opt_state"], key)
        return (state, dict(metadata)), ""

    def _set_aside(self, damaged: dict[int, str], good: int) -> None:
        """Moves the damaged checkpoints, which are newer than the step `good`."""
        if not damaged:
            return
        folder = self._workdir.unreadable

        def move() -> None:
            folder.mkdir(exist_ok=True)
            for step in damaged:
                target = folder / str(step)
                number = sum(1 for _ in folder.glob(f"{step}*"))
                (self.folder / str(step)).rename(f"{target}.{number}" if number else target)

        distributed.run_on_first(move)
        self._orbax.reload()
        for step, reason in damaged.items():
            self.warnings.append(
                f"warning: checkpoint {step} cannot be read ({reason}): it is in {folder} now, "
                f"and the run goes on from {good}"
            )

    def record_score(self, step: int, results: dict[str, float]) -> None:
        """Stores the `best_metric` of an evaluation; the best steps are kept from the next save on.

        One that is not finite is no score. Raises `UserError` when the results lack it. Without a
        `best_metric` it does nothing.
        """
        best = self._config.best_metric
        if not best:
            return
        if best not in results:
            raise UserError(f"checkpoint.best_metric={best}: evaluated were {sorted(results)}")
        self._scores.pop(step, None)
        if math.isfinite(results[best]):
            self._scores[step] = results[best]
        if jax.process_index() == 0:
            self._workdir.write_scores(best, self._scores)

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises `UserError` when it could not be written."""
        with self._writing():
            self._orbax.wait()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Converts errors of the file system to a `UserError`."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = _reason(error)
            if not isinstance(error, OSError) and "os_error_code" not in str(error):
                raise
            raise UserError(
                f"a checkpoint could not be written to {self.folder} ({reason}); those before are "
                "whole: make room and start again to go on from there"
            ) from None


def _reason(error: BaseException) -> str:
    """The root cause of an error in one line of at most 300 characters."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:200] + " ... " + text[-95:]


def _items(state: TrainState) -> dict[str, PyTree]:
    key = jax.random.key_data(state.key)
    rest = {"opt_state": state.opt_state, "step": state.step, "key": key}
    return {"params": state.params, "ema": state.ema, "rest": rest}


def _checksum(items: PyTree) -> str:
    """A sum over the bits and places of all values: the same on every mesh."""
    return checksum_of([leaf for leaf in jax.tree.leaves(items) if leaf.size])


def _abstract(tree: PyTree) -> Any:
    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(shape, tree)
