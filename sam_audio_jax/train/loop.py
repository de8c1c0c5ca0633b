"""The training loop of separator and codec, which pass it their step and their batches.

Several processes run the same loop in step: every decision is the same on all of them. Process 0
writes the files and reads the clock.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from sam_audio_jax import distributed, parallel
from sam_audio_jax.bounds import check, hints
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import whole_file
from sam_audio_jax.train.checkpoint import Checkpoints
from sam_audio_jax.train.config import RunConfig
from sam_audio_jax.train.due import Due
from sam_audio_jax.train.metric_writer import MetricWriter
from sam_audio_jax.train.overview import parameter_table
from sam_audio_jax.train.profiler import StepProfiler
from sam_audio_jax.train.progress import Progress, StepMetrics
from sam_audio_jax.train.step import Step, TrainState, jit_step
from sam_audio_jax.train.step_timer import StepTimer
from sam_audio_jax.train.stopping import Interrupted, Stop, watch_signals
from sam_audio_jax.workdir import Workdir, run_of

Evaluate = Callable[[TrainState, int, bool], dict[str, float]]


@runtime_checkable
class Batches(Protocol):
    """An endless iterator of NumPy batches, the rows of this process, with a state to resume from.

    The state is plain JSON; a batch is a function of it alone.
    """

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


def train_and_evaluate(
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
    kept: Mapping[str, Any] = MappingProxyType({}),
) -> TrainState:
    """Trains until `config.steps` or `config.max_minutes`, from the newest checkpoint if any.

    `step(state, batch[, frozen]) -> (state, metrics)` is pure; it is jitted here and its state is
    donated. Its metrics are scalars, among them `loss` and `skipped`. `frozen` are weights that it
    reads only, if any. `frames_per_step` is called after each batch where batches vary in length.
    `evaluate(state, step, ended)` runs on every process, whose devices hold parts of the
    parameters, every `config.eval_every` steps and, with `ended`, at the end; the results of
    process 0 count. SIGTERM and SIGINT save and end the run; with several processes SIGTERM to any
    of them does. `kept` is plain JSON that each checkpoint holds besides, from which files of the
    workdir can be written anew.

    Raises `UserError` for a workdir of another config, for a batch that the mesh does not divide,
    and after `config.max_skipped` steps in a row that were not finite.
    """
    _check_rows(config, mesh)
    files = Workdir.open(workdir, config)
    state = put_state(state, mesh)
    progress = Progress()
    with watch_signals() as stop, Checkpoints(workdir, config.checkpoint) as checkpoints:
        restored = checkpoints.restore_latest(state, lambda found: _check_metadata(found, batches))
        if restored is not None:
            state, metadata = restored
            progress = Progress(**metadata["progress"])
            batches.set_state(metadata["data"])
        done = int(state.step)
        with MetricWriter(files, start=done, steps=config.steps) as writer:
            for line in checkpoints.warnings:
                writer.print(line)
            if done:
                writer.print(f"going on from step {done}")
            _write_overview(files, writer, state.params, frozen)
            timer = StepTimer(frames_per_step, progress.seconds)
            evaluations = [x["step"] for x in files.read_metrics() if x["group"] == "eval"]
            run = _Run(
                config=config,
                mesh=mesh,
                checkpoints=checkpoints,
                writer=writer,
                metrics=StepMetrics(progress, config.max_skipped),
                timer=timer,
                due=Due(config, timer, {x for x in evaluations if x <= done}),
                stop=stop,
                profiler=StepProfiler(files.profile if profile else None),
                evaluate=evaluate,
                kept=kept,
            )
            return run.loop(state, step, batches, () if frozen is None else (frozen,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """The parts of one run that the loop uses, and the loop."""

    config: RunConfig
    mesh: Mesh
    checkpoints: Checkpoints
    writer: MetricWriter
    metrics: StepMetrics
    timer: StepTimer
    due: Due
    stop: Stop
    profiler: StepProfiler
    evaluate: Evaluate | None
    kept: Mapping[str, Any]

    def loop(
        self, state: TrainState, step: Step, batches: Batches, frozen: tuple[PyTree, ...]
    ) -> TrainState:
        due, timer, writer = self.due, self.timer, self.writer
        done = int(state.step)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        jitted = jit_step(step, shardings, parallel.replicated(self.mesh))
        timer.skip()
        while True:
            # Evaluation comes before the end and before the next step: the last step is evaluated
            # too, and so is a step whose evaluation was interrupted when the run goes on from it.
            ended = due.end(done)
            if self.evaluate is not None and due.evaluation(done, ended):
                self.save(state, batches)
                self.run_evaluation(self.evaluate, state, done, ended)
            if ended or self.stop.requested(done):
                break
            timer.add("step")
            batch = to_devices(next(batches), self.mesh)
            timer.add("input")
            if timer.is_new(batch):
                writer.show("compiling")
            with (
                jax.set_mesh(self.mesh),
                jax.profiler.StepTraceAnnotation("train", step_num=done),
                # All inputs are on the devices: a transfer here would happen at every step.
                jax.transfer_guard("disallow"),
            ):
                state, metrics = jitted(state, batch, *frozen)
            done += 1
            # The devices work while the host goes on; this waits for the step before the last.
            self.metrics.add(metrics | {"frames": timer.count()})
            self.profiler.advance()
            timer.advance()
            timer.add("step")
            writer.advance(timer.progress_text(due.seconds_left(done)))
            if due.log(done):
                means = self.metrics.means()
                timer.add("step")
                writer.write(done, means | timer.means())
            if due.checkpoint(done):
                self.save(state, batches)
        self.profiler.close()
        self.save(state, batches)
        self.checkpoints.wait()
        if self.stop.signal:
            writer.print(
                f"stopped by {self.stop.signal} after step {done}: saved, run again to go on"
            )
        return state

    def save(self, state: TrainState, batches: Batches) -> None:
        """Starts a save of everything that the next start needs; writes in the background."""
        self.metrics.read()  # the counters must be those of this step
        self.timer.add("step")
        progress = dataclasses.replace(self.metrics.progress, seconds=self.timer.seconds)
        metadata = {
            **run_of(self.config),
            "progress": dataclasses.asdict(progress),
            "data": batches.get_state(),
            "kept": dict(self.kept),
        }
        self.checkpoints.save(state, metadata)
        self.timer.add("checkpoint")
        self.due.saved()

    def run_evaluation(self, evaluate: Evaluate, state: TrainState, done: int, ended: bool) -> None:
        """Writes the results of process 0; does nothing when a signal interrupts the evaluation."""
        try:
            with self.stop.at_once():
                results = evaluate(state, done, ended)
        except Interrupted:
            return
        finally:
            self.timer.skip()
        values = distributed.broadcast_from_first([float(value) for value in results.values()])
        results = dict(zip(results, values, strict=True))
        self.due.evaluated.add(done)
        self.writer.write(done, results, group="eval")
        self.checkpoints.record_score(done, results)


def _check_metadata(metadata: dict[str, Any], batches: Batches) -> None:
    """Raises ValueError, KeyError or TypeError for metadata that `_Run.save` did not write."""
    progress = Progress(**metadata["progress"])
    for name, hint in hints(Progress).items():
        check(hint, getattr(progress, name), f"progress.{name}")
    missing = set(batches.get_state()) - set(metadata["data"])
    if missing:
        raise ValueError(f"the state of the data lacks {', '.join(sorted(missing))}")


def _check_rows(config: RunConfig, mesh: Mesh) -> None:
    name, multiple = config.row_multiple
    shards = parallel.batch_axis_size(mesh)
    if multiple % shards:
        raise UserError(f"{name}={multiple} must be a multiple of {shards}, its shards on {mesh}")


def _write_overview(
    workdir: Workdir, writer: MetricWriter, params: Mapping[str, Any], frozen: PyTree
) -> None:
    """Prints the table of parameters and keeps it in the workdir."""
    if jax.process_index():
        return
    weights = {f"frozen {name}": tree for name, tree in (frozen or {}).items()}
    table = parameter_table({**params, **weights})
    writer.print(table)
    try:
        with whole_file(workdir.parameters_file) as part:
            part.write_text(table + "\n")
    except OSError as error:
        raise UserError(f"{workdir.parameters_file} cannot be written: {error.strerror}") from None


def put_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Puts every leaf on the mesh: replicated, unless it is sharded over this mesh already.

    Each leaf gets a buffer of its own, because a buffer that occurs twice (an EMA that starts as
    the parameters) cannot be donated.
    """
    seen: set[int] = set()

    def put(leaf: Any) -> jax.Array:
        leaf = jnp.copy(leaf) if id(leaf) in seen else leaf
        seen.add(id(leaf))
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(sharding, NamedSharding) and sharding.mesh == mesh:
            return leaf
        return _replicate(leaf, mesh)

    return jax.tree.map(put, state)


def _replicate(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    """Replicates a value that every process has over all devices of all processes."""
    sharding = parallel.replicated(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_replicate(jax.random.key_data(leaf), mesh))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def to_devices(batch: PyTree, mesh: Mesh) -> PyTree:
    """Puts this process's rows of a batch on the devices, sharded over the data-parallel ones."""
    sharding = parallel.batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
