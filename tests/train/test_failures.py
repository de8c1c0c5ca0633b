"""What ends a run badly, and what then happens.

| Failure | Outcome |
| --- | --- |
| a process is killed outright | the others end with status 1 and one line; a new start goes on |
| a process meets a `UserError` | it ends with status 2 and that line, the others as above |
| the disk is full during a save | status 2 and one line; older checkpoints are whole |
| a file of a checkpoint is damaged | the run goes on from the newest whole one, with a warning |
| no checkpoint is whole | status 2 and one line: a run never starts anew by itself |
| a host starts late | the others wait for it |
| a host never starts | status 1 and one line after SAM_AUDIO_START_TIMEOUT |
| a gradient is not finite | the step changes no weight and is counted; many in a row end the run |
| a batch has no valid frame | its loss is 0 and finite, the step counts |
"""

import pathlib
import resource
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.flow import FlowConfig, flow_loss
from sam_audio_jax.train.step import TrainState, train_step
from sam_audio_jax.workdir import Workdir
from tests.train import run_linear

LONG = ("100000", "--slow", "0.1", "--every", "3")


def wait_until(moment: str, run, folder: pathlib.Path):
    """Waits until a run of two processes is before its first step, between two, or in a save."""
    if moment == "start":
        run.wait_for(folder / "config.json")
        return
    run.wait_for(folder / "checkpoints" / "6" / "_CHECKPOINT_METADATA")
    while moment == "save" and not list((folder / "checkpoints").glob("*tmp*")):
        time.sleep(0.0005)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("killed", "moment"),
    [
        (0, "step"),
        *(
            pytest.param(rank, moment, marks=pytest.mark.long)
            for rank, moment in [(1, "step"), (0, "start"), (1, "start"), (0, "save"), (1, "save")]
        ),
    ],
)
def test_a_killed_process_ends_the_others_and_a_new_start_goes_on(
    train_processes, tmp_path, capsys, killed, moment
):
    """Process 0 has JAX's coordination service, whose clients abort when they lose it."""
    folder, other = tmp_path / "run", 1 - killed
    run = train_processes("run", *LONG, count=2)
    wait_until(moment, run, folder)
    run.processes[killed].send_signal(signal.SIGKILL)
    statuses = run.statuses()
    assert (statuses[killed], statuses[other]) == (-signal.SIGKILL, 1)
    errors = [line for line in run.output(other).splitlines() if "error" in line.lower()]
    (line,) = errors
    assert line.startswith(f"error: process {other} lost the others (process {killed} is gone)")
    assert "Traceback" not in run.output(other)
    if moment == "start":
        return
    reached = Workdir(folder).read_metrics()[-1]["step"]
    saved = Workdir(folder).steps()[-1]
    assert saved >= reached - 2 * 3  # the save of the last multiple of 3 may have been under way
    assert not run_linear.main([str(folder), str(reached + 1)])
    assert f"going on from step {saved}" in capsys.readouterr().err
    assert Workdir(folder).steps()[-1] == reached + 1


@pytest.mark.processes
def test_an_error_of_one_process_does_not_hang_the_others(train_processes, tmp_path):
    run = train_processes("run", *LONG, "--raise-at", "4", count=2)
    assert run.statuses() == [1, 2]
    assert run.output(1).splitlines()[-1] == "error: this host has no data"
    assert "error: process 0 lost the others" in run.output(0)


@pytest.mark.processes
def test_a_workdir_that_is_refused_is_refused_by_all(train_processes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    run = train_processes("run", *LONG, count=2)
    assert run.statuses() == [2, 2]
    for index in (0, 1):
        assert "not empty and holds no config.json" in run.output(index)


def test_a_full_disk_is_one_line_and_older_checkpoints_are_whole(
    train, batches, same, tmp_path, monkeypatch, capsys
):
    """No file can grow beyond 100 bytes during a real save; stderr is not a file here."""
    whole = train("whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    metrics = "sam_audio_jax.train.metric_writer.MetricWriter.write"  # it writes to the same disk
    monkeypatch.setattr(metrics, lambda *args, **named: None)

    def fill():
        while not Workdir(tmp_path / "run").steps():  # the save of step 7 is under way
            time.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(UserError, match=r"could not be written .*those before are whole") as e:
            train("run", batches=batches(at={9: fill}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(e.value)
    assert Workdir(tmp_path / "run").steps() == [7]
    settle(tmp_path / "run")
    assert same(train("run").params, whole.params)


def settle(folder: pathlib.Path):
    """Waits until threads of the failed save, which a new process would not have, have ended."""
    before = None
    while before != (before := sorted(folder.rglob("*"))):
        time.sleep(0.5)


def damage(workdir: pathlib.Path, step: int, pattern: str):
    folder = workdir / "checkpoints" / str(step)
    file = max(folder.rglob(pattern), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("pattern", ["params/d/*", "_CHECKPOINT_METADATA"])
def test_a_damaged_checkpoint_is_set_aside_with_a_warning(train, same, tmp_path, capsys, pattern):
    whole = train("whole")
    train("run", steps=14)
    damage(tmp_path / "run", 14, pattern)
    assert same(train("run").params, whole.params)
    (warning,) = [x for x in capsys.readouterr().err.splitlines() if "warning: checkpoint" in x]
    assert "checkpoint 14 cannot be read" in warning
    assert "goes on from 7" in warning
    assert (tmp_path / "run" / "unreadable" / "14").is_dir()


def test_without_a_whole_checkpoint_nothing_starts_anew(train, tmp_path):
    train("run", steps=7)
    damage(tmp_path / "run", 7, "rest/manifest.ocdbt")
    with pytest.raises(UserError, match=r"^none of the 1 checkpoints in .* can be read; 7: "):
        train("run")
    assert Workdir(tmp_path / "run").steps() == [7]


@pytest.mark.processes
def test_two_processes_agree_on_the_checkpoint_that_both_can_read(train_processes, tmp_path):
    assert not run_linear.main([str(tmp_path / "run"), "6", "--every", "3"])
    run = train_processes("run", "8", "--every", "3", "--blind", "6", count=2)
    run.finish()
    assert "warning: checkpoint 6 cannot be read" in run.output(0)
    assert "going on from step 3" in run.output(0)
    assert Workdir(tmp_path / "run").steps() == [3, 6, 8]


@pytest.mark.processes
def test_a_host_that_starts_late_is_waited_for(train_processes, tmp_path, free_port):
    first = train_processes("run", "2", count=2, only=(0,), port=free_port)
    time.sleep(10)
    assert first.processes[0].poll() is None
    train_processes("run", "2", count=2, only=(1,), port=free_port).finish()
    first.finish()
    assert Workdir(tmp_path / "run").steps() == [2]


@pytest.mark.processes
@pytest.mark.parametrize("rank", [0, 1])
def test_a_host_that_never_starts_ends_the_wait_with_a_line(train_processes, rank):
    run = train_processes("run", "2", count=2, only=(rank,), SAM_AUDIO_START_TIMEOUT="2")
    assert run.statuses() == [1]
    assert run.output(0) == (
        f"error: process {rank} of 2 waited 2 s for the others to start; start them all, or give "
        "them more time by SAM_AUDIO_START_TIMEOUT"
    )


def test_a_gradient_that_is_not_finite_leaves_the_weights(same):
    """The loss is finite: only the gradient of the square root at 0 is not."""

    def loss(params, batch, key):
        return jnp.sum(jnp.sqrt(params["w"] * batch)), {}

    params = {"w": jnp.ones(3)}
    tx = optax.adam(0.1)
    state = TrainState(jnp.int32(0), params, params, tx.init(params), jax.random.key(0))
    after, metrics = train_step(state, jnp.zeros(3), loss=loss, tx=tx, ema_decay=0.9)
    assert np.isfinite(metrics["loss"])
    assert bool(metrics["skipped"])
    assert same(
        (after.params, after.ema, after.opt_state), (state.params, state.ema, state.opt_state)
    )
    assert int(after.step) == 1


def test_a_batch_without_valid_frames_has_no_loss_and_counts():
    def loss(params, batch, key):
        value = flow_loss(
            lambda x, time: params["w"] * x, batch, jnp.zeros((2, 5), bool), key, FlowConfig()
        )
        return value, {}

    params = {"w": jnp.ones(())}
    tx = optax.adam(0.1)
    state = TrainState(jnp.int32(0), params, params, tx.init(params), jax.random.key(0))
    after, metrics = train_step(state, jnp.ones((2, 5, 4)), loss=loss, tx=tx, ema_decay=0.9)
    assert float(metrics["loss"]) == 0.0
    assert not bool(metrics["skipped"])
    assert np.isfinite(after.params["w"])
    assert int(after.step) == 1
