"""Several processes over loopback are one run: same losses, same weights, same end.

Losses of different layouts differ by the order of float32 sums only: rtol 1e-4 over a few steps.
"""

import json
import os
import pathlib
import signal
import time

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest

from sam_audio_jax import distributed
from sam_audio_jax.distributed import ProcessRank
from sam_audio_jax.errors import UserError
from sam_audio_jax.workdir import Workdir

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


@pytest.mark.slow  # three processes that each compile the separator's training step: 40 s
def test_one_or_two_processes_train_the_separator_alike(train_processes, manifest, tmp_path):
    for count in (1, 2):
        train_processes(
            f"of{count}",
            *("--data.source.manifests", str(manifest), *STEPS),
            count=count,
            devices=4 // count,
            door=("launch/train.py", "tests/train/tiny.py", "--workdir"),
        ).finish()
    one, two = tmp_path / "of1", tmp_path / "of2"
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    assert_close(weights(two), weights(one), atol=2e-4)
    assert sorted(path.name for path in two.iterdir()) == sorted(
        path.name for path in one.iterdir()
    )
    assert len(list((two / "events").iterdir())) == 1


@pytest.mark.slow  # seven processes that load JAX: 30 s
def test_four_devices_of_one_two_or_four_processes_train_alike(train_processes, tmp_path):
    for count in (1, 2, 4):
        train_processes(f"of{count}", "6", count=count, devices=4 // count).finish()
        np.testing.assert_allclose(
            losses(tmp_path / f"of{count}"), losses(tmp_path / "of1"), rtol=1e-4
        )
        assert_close(weights(tmp_path / f"of{count}"), weights(tmp_path / "of1"), atol=1e-5)


@pytest.mark.slow  # four processes that load JAX: 20 s
def test_two_processes_are_continued_by_one_and_evaluate(train_processes, tmp_path):
    train_processes("whole", "12", "--evaluate", devices=2).finish()
    train_processes("parts", "7", "--evaluate", count=2).finish()
    train_processes("parts", "12", "--evaluate").finish()
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "parts"), rel=1e-4)
    assert_close(weights(tmp_path / "whole"), weights(tmp_path / "parts"), atol=1e-5)
    scores = [
        line for line in Workdir(tmp_path / "parts").read_metrics() if line["group"] == "eval"
    ]
    assert [line["step"] for line in scores] == [4, 7, 8, 12]
    assert {line["host"] for line in scores} == {0.0}  # the numbers are those of process 0


def test_eight_devices_are_continued_by_four_and_by_one(train_processes, tmp_path):
    train_processes("whole", "12").finish()
    train_processes("parts", "4", "--mesh", "2,2,2,1", devices=8).finish()
    train_processes("parts", "8", "--mesh", "1,2,2,1", devices=4).finish()
    train_processes("parts", "12").finish()
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "parts"), rel=1e-4)
    assert_close(weights(tmp_path / "whole"), weights(tmp_path / "parts"), atol=1e-5)


def test_a_model_split_over_processes_gets_the_same_batch_on_each(train_processes, tmp_path):
    train_processes("whole", "4").finish()
    train_processes("split", "4", "--mesh", "1,1,2,1", count=2).finish()
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "split"), rel=1e-4)


def test_sigterm_to_one_process_saves_the_same_step_on_all(train_processes, tmp_path):
    run = train_processes("run", "100000", "--slow", "0.05", "--every", "0", count=2)
    run.wait_for(tmp_path / "run" / "metrics.jsonl")
    time.sleep(0.5)
    run.processes[1].send_signal(signal.SIGTERM)
    run.finish()
    (step,) = Workdir(tmp_path / "run").steps()
    assert f"stopped by SIGTERM after step {step}" in run.said(0)
    train_processes("run", str(step + 2)).finish()
    assert Workdir(tmp_path / "run").steps() == [step, step + 2]


def test_time_ends_all_processes_at_one_step(train_processes, tmp_path):
    train_processes("run", "100000", "--slow", "0.1", "--max-minutes", "0.02", count=2).finish()
    assert len(Workdir(tmp_path / "run").steps()) >= 1


def environment(**given: str) -> dict[str, str]:
    return {f"SAM_AUDIO_{name}": value for name, value in given.items()}


def test_the_environment_gives_the_place():
    full = environment(COORDINATOR="host:1234", PROCESSES="4", PROCESS_ID="3")
    assert distributed.read_environment({}) is None
    assert distributed.read_environment(full) == ProcessRank(3, 4)
    assert distributed.read_environment(environment(PROCESSES="1")) == ProcessRank(0, 1)
    assert distributed.rank_from_environment({}) == ProcessRank(0, 1)
    assert distributed.rank_from_environment(
        environment(PROCESSES="2", PROCESS_ID="1")
    ) == ProcessRank(1, 2)
    assert distributed.rank_from_environment(
        {"SLURM_NTASKS": "3", "SLURM_PROCID": "2"}
    ) == ProcessRank(2, 3)
    slices = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}
    assert distributed.rank_from_environment(slices) == ProcessRank(1, 2)
    slices |= {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    assert distributed.rank_from_environment(slices) == ProcessRank(3, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PROCESSES": "2"}, "SAM_AUDIO_PROCESSES without SAM_AUDIO_COORDINATOR and SAM_AUDIO_PRO"),
        ({"COORDINATOR": "h:1", "PROCESS_ID": "0"}, "PROCESS_ID without SAM_AUDIO_PROCESSES: set"),
        ({"COORDINATOR": "h", "PROCESSES": "2", "PROCESS_ID": "0"}, "'h' must be host:port"),
        ({"COORDINATOR": "h:1", "PROCESSES": "2", "PROCESS_ID": "2"}, "process 2 of 2: they are"),
        ({"COORDINATOR": "h:1", "PROCESSES": "two", "PROCESS_ID": "0"}, "'two' must be a whole"),
    ],
)
def test_settings_that_contradict_are_the_users_error(given, said):
    with pytest.raises(UserError, match=said):
        distributed.read_environment(environment(**given))


def test_what_jax_cannot_find_is_said(monkeypatch):
    monkeypatch.setattr(os, "environ", {"OMPI_COMM_WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="this Open MPI names no coordinator: set SAM_AUDIO"):
        distributed.initialize()


def test_the_metrics_tell_where_the_time_went(train_processes, tmp_path):
    train_processes("run", "6", "--slow", "0.2", "--every", "2").finish()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for line in lines:  # what a save takes is in the line after it
        assert line["seconds_input"] >= 0.2
        assert line["seconds_step"] > 0
    assert [line["seconds_checkpoint"] > 0 for line in lines] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
