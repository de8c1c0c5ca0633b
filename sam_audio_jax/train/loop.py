"""The training loop: one for separator, codec and judge, which bring their step and batches.

Of several processes all run the same loop in step; process 0 alone writes config and metrics and
decides by the clock.
"""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from sam_audio_jax import distributed, parallel
from sam_audio_jax.config import to_dict
from sam_audio_jax.errors import UserError
from sam_audio_jax.train.checkpoint import Checkpoints
from sam_audio_jax.train.config import RunConfig
from sam_audio_jax.train.metrics import Metrics, read_lines
from sam_audio_jax.train.step import Step, TrainState, jit_step
from sam_audio_jax.train.step_timer import StepTimer
from sam_audio_jax.train.stopping import Interrupted, Stop, watch_signals
from sam_audio_jax.workdir import Workdir

Evaluate = Callable[[TrainState, int], dict[str, float]]

AHEAD = 2  # steps that the host may be ahead of the devices
PROFILED = (3, 8)  # steps of this process that `profile` records


@runtime_checkable
class Batches(Protocol):
    """An endless iterator of numpy batches, this process's rows, that knows where it is."""

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


@dataclasses.dataclass
class Progress:
    """Counters that a checkpoint carries besides the state; all JSON."""

    seconds: float = 0.0  # of training; evaluation does not count
    skipped: int = 0  # steps that were not finite, in all
    skipped_in_row: int = 0
    pending: list[dict[str, float]] = dataclasses.field(default_factory=list)  # not yet logged


def run(
    config: RunConfig,
    *,
    workdir: pathlib.Path,
    state: TrainState,
    step: Step,
    batches: Batches,
    mesh: Mesh,
    frames_per_step: int | Callable[[], int],
    frozen: PyTree = None,
    evaluate: Evaluate | None = None,
    profile: bool = False,
) -> TrainState:
    """Trains until `config.steps` or `config.max_minutes`, from the newest checkpoint if any.

    `step(state, batch[, frozen]) -> (state, metrics)` is pure; it is jitted here with its state
    donated. Its metrics are scalars, among them `loss` and `skipped`; `frozen` are weights that it
    reads only, if any. `frames_per_step` is asked after each batch where batches vary; every shape
    is compiled when it first comes. `evaluate(state, step)` is called every `config.eval_every`
    steps and at the end, by every process, for the parameters lie on the devices of all; the
    results of process 0 count. SIGTERM and SIGINT save and end the run; with several processes
    SIGTERM to one does.

    Raises `UserError` for a workdir of another config, for a batch that the mesh does not divide,
    and after `config.max_skipped` steps in a row that were not finite.
    """
    name, multiple = config.row_multiple
    if multiple % parallel.batch_axis_size(mesh):
        shares = parallel.batch_axis_size(mesh)
        raise UserError(f"{name}={multiple} must be a multiple of {shares}, its shares on {mesh}")
    Workdir.open(workdir, config)
    state = place(state, mesh)
    with watch_signals() as stop, Checkpoints(workdir, config.checkpoint) as checkpoints:
        restored = checkpoints.restore_latest(state)
        progress = Progress()
        if restored is not None:
            state, metadata = restored
            progress = Progress(**metadata["progress"])
            batches.set_state(metadata["data"])
        start = int(state.step)
        with Metrics(workdir, start=start, steps=config.steps) as metrics:
            for line in checkpoints.warnings:
                metrics.say(line)
            if start:
                metrics.say(f"going on from step {start}")
            pace = StepTimer(frames_per_step)
            loop = _Loop(
                config, workdir, checkpoints, metrics, progress, stop, evaluate, pace, start
            )
            given = () if frozen is None else (frozen,)
            trace = _Trace(workdir / "profile") if profile else None
            return loop.run(state, step, batches, mesh, given, trace)


class _Loop:
    """The collaborators of one run and what is decided between its steps."""

    def __init__(
        self,
        config: RunConfig,
        workdir: pathlib.Path,
        checkpoints: Checkpoints,
        metrics: Metrics,
        progress: Progress,
        stop: Stop,
        evaluate: Evaluate | None,
        pace: StepTimer,
        start: int,
    ):
        self.config = config
        self.workdir = workdir
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.progress = progress
        self.stop = stop
        self.evaluate = evaluate
        self.timer = pace
        evaluations = [line["step"] for line in read_lines(workdir) if line["group"] == "eval"]
        self.evaluated = {step for step in evaluations if step <= start}
        self.unread: collections.deque[dict[str, jax.Array]] = collections.deque()
        self.saved_at = time.monotonic()

    def run(
        self,
        state: TrainState,
        step: Step,
        batches: Batches,
        mesh: Mesh,
        frozen: tuple[PyTree, ...],
        trace: "_Trace | None",
    ) -> TrainState:
        done = int(state.step)
        layout = jax.tree.map(lambda leaf: leaf.sharding, state)
        jitted = jit_step(step, layout, parallel.replicated(mesh))
        self.timer.add()
        self.evaluate_if_due(state, done, batches)
        while not self.finished(done) and not self.stop.asked(done):
            self.add("step")
            batch = to_devices(next(batches), mesh)
            self.add("input")
            if self.timer.is_new(batch):
                self.metrics.show("compiling")
            with jax.set_mesh(mesh):
                state, values = jitted(state, batch, *frozen)
            done += 1
            self.unread.append(values | {"frames": self.timer.count()})
            if len(self.unread) > AHEAD:
                jax.block_until_ready(self.unread[-1 - AHEAD])
            if trace:
                trace.advance()
            self.timer.advance()
            self.add("step")
            self.metrics.advance(self.timer.progress_text(self.seconds_left(done)))
            if done % self.config.log_every == 0:
                self.log(done)
            if self.save_due(done):
                self.save(state, batches)
            self.evaluate_if_due(state, done, batches)
        if trace:
            trace.end()
        self.save(state, batches)
        self.checkpoints.wait()
        if self.stop.by:
            self.metrics.say(
                f"stopped by {self.stop.by} after step {done}: saved, run again to go on"
            )
        return state

    def add(self, part: str) -> None:
        """The time since the last lap was trained, and spent on this part of it."""
        self.progress.seconds += self.timer.add(part)

    def finished(self, done: int) -> bool:
        if done >= self.config.steps:
            return True
        limit = 60 * self.config.max_minutes
        return bool(limit) and self.agreed_on(self.progress.seconds >= limit, done)

    def agreed_on(self, answer: bool, done: int) -> bool:
        """Several processes ask each other only now and then: it costs a round trip."""
        if jax.process_count() > 1 and done % self.config.log_every:
            return False
        return distributed.broadcast_bool(answer)

    def seconds_left(self, done: int) -> float:
        left = (self.config.steps - done) * self.timer.seconds_per_step()
        limit = 60 * self.config.max_minutes
        return min(left, limit - self.progress.seconds) if limit else left

    def read(self) -> None:
        """Fetches the metrics of the steps since the last read and counts the bad ones."""
        for values in jax.device_get(list(self.unread)):
            numbers = {name: float(value) for name, value in values.items()}
            skipped = bool(numbers.pop("skipped", 0.0))
            self.progress.skipped += skipped
            self.progress.skipped_in_row = self.progress.skipped_in_row + 1 if skipped else 0
            if not skipped:
                self.progress.pending.append(numbers)
            if self.progress.skipped_in_row >= self.config.max_skipped:
                raise UserError(
                    f"{self.progress.skipped_in_row} steps in a row had a loss or gradient that is "
                    "not finite; try a lower optim.peak_lr, or look at the data"
                )
        self.unread.clear()

    def log(self, done: int) -> None:
        """Writes the means over the steps since the last line."""
        self.read()
        pending = self.progress.pending
        names = pending[0] if pending else ()
        means = {name: float(np.mean([values[name] for values in pending])) for name in names}
        self.add("step")
        means |= {"skipped": self.progress.skipped, **self.timer.means()}
        self.metrics.write(done, means)
        pending.clear()

    def save_due(self, done: int) -> bool:
        every = self.config.checkpoint.every_steps
        if every and done % every == 0:
            return True
        seconds = 60 * self.config.checkpoint.every_minutes
        late = time.monotonic() - self.saved_at >= seconds
        return bool(seconds) and self.agreed_on(late, done)

    def save(self, state: TrainState, batches: Batches) -> None:
        self.read()
        self.add("step")
        metadata = {
            "progress": dataclasses.asdict(self.progress),
            "data": batches.get_state(),
            "config": to_dict(self.config),
        }
        self.checkpoints.save(state, metadata)
        self.add("checkpoint")
        self.saved_at = time.monotonic()

    def evaluate_if_due(self, state: TrainState, done: int, batches: Batches) -> None:
        """Saves first: an evaluation that is cut short is made again by the next start."""
        every = self.config.eval_every
        due = self.finished(done) or (every and done and done % every == 0)
        if self.evaluate is None or not due or done in self.evaluated:
            return
        self.save(state, batches)
        try:
            with self.stop.at_once():
                results = self.evaluate(state, done)
        except Interrupted:
            return
        finally:
            self.timer.add()
        values = distributed.broadcast_from_first([float(value) for value in results.values()])
        results = dict(zip(results, values, strict=True))
        self.evaluated.add(done)
        self.metrics.write(done, results, group="eval")
        best = self.config.checkpoint.best_metric
        if best:
            if best not in results:
                raise UserError(f"checkpoint.best_metric={best}: evaluated were {sorted(results)}")
            self.checkpoints.record_score(done, results[best])


class _Trace:
    """Records a few steps after the compilation for XProf."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.step = folder, 0

    def advance(self) -> None:
        """One step more."""
        self.step += 1
        if self.step == PROFILED[0]:
            jax.profiler.start_trace(str(self.folder))
        elif self.step == PROFILED[1]:
            jax.profiler.stop_trace()

    def end(self) -> None:
        """Of a run that ends while it is recorded."""
        if PROFILED[0] <= self.step < PROFILED[1]:
            jax.profiler.stop_trace()


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Every leaf on the mesh (replicated unless sharded already), each in a buffer of its own.

    A buffer that is there twice (an EMA that starts as the parameters) cannot be donated.
    """
    seen: set[int] = set()

    def put(leaf: Any) -> jax.Array:
        leaf = jnp.copy(leaf) if id(leaf) in seen else leaf
        seen.add(id(leaf))
        layout = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(layout, NamedSharding) and layout.mesh == mesh:
            return leaf
        return _everywhere(leaf, mesh)

    return jax.tree.map(put, state)


def _everywhere(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    """The same value, which every process has, on all devices of all processes."""
    layout = parallel.replicated(mesh)
    if layout.is_fully_addressable:
        return jax.device_put(leaf, layout)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_everywhere(jax.random.key_data(leaf), mesh))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, layout, lambda index: value[index])


def to_devices(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows of the batch, shared out over the data-parallel devices."""
    layout = parallel.batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(layout, x), batch)
