"""Several processes over loopback are one run: same losses, same weights, same end.

Losses of different layouts differ by the order of float32 sums only: rtol 1e-4 over a few steps.
"""

import os
import pathlib
import signal
import time

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError
from sam_audio_jax.workdir import Workdir
from tests.eval.listing import make_folder, three_lines
from tests.train import run_linear

pytestmark = pytest.mark.processes
STEPS = ["--steps", "3", "--log-every", "1", "--checkpoint.every-steps", "3"]


def losses(workdir: pathlib.Path, start: int = 0) -> list[float]:
    lines = [line for line in Workdir(workdir).read_metrics() if line["group"] == "train"]
    return [line["loss"] for line in lines if line["step"] > start]


def weights(workdir: pathlib.Path) -> list[np.ndarray]:
    step = workdir / "checkpoints" / str(Workdir(workdir).steps()[-1])
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    saved = ocp.checkpointables_metadata(str(step)).metadata["params"]
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
    return jax.tree.leaves(ocp.load_checkpointables(str(step), {"params": like})["params"])


def assert_close(left: list, right: list, **tolerance):
    assert len(left) == len(right) > 0
    for ours, theirs in zip(left, right, strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """The workdir of an undisturbed run of 12 steps in this process, on one device."""
    workdir = tmp_path_factory.mktemp("linear") / "whole"
    assert not run_linear.main([str(workdir), "12", "--evaluate"])
    return workdir


def test_one_or_two_processes_train_the_separator_alike(train_processes, manifest, tmp_path):
    """Takes long because three processes compile the training step and the evaluations."""
    make_folder(tmp_path / "bench", three_lines())
    for count in (1, 2):
        train_processes(
            f"of{count}",
            *("--data.source.manifests", str(manifest), *STEPS),
            *("--eval-bench", str(tmp_path / "bench"), "--eval-limit", "2"),
            count=count,
            command=("launch/train.py", "tests/train/tiny.py", "--workdir"),
        ).finish()
    one, two = tmp_path / "of1", tmp_path / "of2"
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    assert_close(weights(two), weights(one), atol=2e-4)
    assert sorted(path.name for path in two.iterdir()) == sorted(
        path.name for path in one.iterdir()
    )
    assert len(list((two / "events").iterdir())) == 1
    own, again = (Workdir(path).read_metrics()[-1] for path in (one, two))
    held_out = [name for name in own if name.startswith("flow_loss/")]
    assert len(held_out) == 6
    for name in held_out:
        assert again[name] == pytest.approx(own[name], rel=1e-4)


@pytest.mark.long
def test_four_devices_of_one_two_or_four_processes_train_alike(train_processes, tmp_path):
    """Starts seven processes; the tests around this one compare two with one."""
    for count in (1, 2, 4):
        train_processes(f"of{count}", "6", count=count, devices=4 // count).finish()
        np.testing.assert_allclose(
            losses(tmp_path / f"of{count}"), losses(tmp_path / "of1"), rtol=1e-4
        )
        assert_close(weights(tmp_path / f"of{count}"), weights(tmp_path / "of1"), atol=1e-5)


def test_two_processes_are_continued_by_one_and_evaluate(whole, train_processes, tmp_path):
    parts = tmp_path / "parts"
    train_processes("parts", "7", "--evaluate", count=2).finish()
    assert not run_linear.main([str(parts), "12", "--evaluate"])
    assert losses(whole) == pytest.approx(losses(parts), rel=1e-4)
    assert_close(weights(whole), weights(parts), atol=1e-5)
    scores = [line for line in Workdir(parts).read_metrics() if line["group"] == "eval"]
    assert [line["step"] for line in scores] == [4, 7, 8, 12]
    assert {line["host"] for line in scores} == {0.0}  # the numbers are those of process 0


def test_eight_devices_are_continued_by_four_and_by_one(whole, train_processes, tmp_path):
    parts = tmp_path / "parts"
    train_processes("parts", "4", "--mesh", "2,2,2,1", devices=8).finish()
    train_processes("parts", "8", "--mesh", "1,2,2,1", devices=4).finish()
    assert not run_linear.main([str(parts), "12"])
    assert losses(whole) == pytest.approx(losses(parts), rel=1e-4)
    assert_close(weights(whole), weights(parts), atol=1e-5)


def test_a_model_split_over_processes_gets_the_same_batch_on_each(whole, train_processes, tmp_path):
    train_processes("split", "4", "--mesh", "1,1,2,1", count=2).finish()
    assert losses(whole)[:4] == pytest.approx(losses(tmp_path / "split"), rel=1e-4)


def test_sigterm_to_one_process_saves_the_same_step_on_all(train_processes, tmp_path):
    run = train_processes("run", "100000", "--slow", "0.05", "--every", "0", count=2)
    run.wait_for(tmp_path / "run" / "metrics.jsonl")
    time.sleep(0.5)
    run.processes[1].send_signal(signal.SIGTERM)
    run.finish()
    (step,) = Workdir(tmp_path / "run").steps()
    assert f"stopped by SIGTERM after step {step}" in run.output(0)
    assert not run_linear.main([str(tmp_path / "run"), str(step + 2), "--every", "0"])
    assert Workdir(tmp_path / "run").steps() == [step, step + 2]


def test_time_ends_all_processes_at_one_step(train_processes, tmp_path):
    train_processes("run", "100000", "--slow", "0.1", "--max-minutes", "0.02", count=2).finish()
    assert len(Workdir(tmp_path / "run").steps()) >= 1


def test_ranks_that_jax_cannot_find_are_the_users_error(monkeypatch):
    monkeypatch.setattr(os, "environ", {"OMPI_COMM_WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="this Open MPI names no coordinator: set SAM_AUDIO"):
        distributed.initialize()


def test_the_metrics_split_the_time_of_a_step(tmp_path):
    assert not run_linear.main([str(tmp_path / "run"), "6", "--slow", "0.2", "--every", "2"])
    lines = Workdir(tmp_path / "run").read_metrics()
    for line in lines:  # the time of a save is in the line after it
        assert line["seconds_input"] >= 0.2
        assert line["seconds_step"] > 0
        whole = line["seconds_input"] + line["seconds_step"]
        assert line["input_share"] == pytest.approx(line["seconds_input"] / whole)
    assert [line["seconds_checkpoint"] > 0 for line in lines] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
