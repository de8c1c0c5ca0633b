import json
import os
import signal
import time

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig
from sam_audio_jax.workdir import Workdir
from tests.train.metrics import untimed


def distance(state, step, ended):
    """A score that is best at step 10."""
    return {"score": -abs(step - 10.0)}


def saved(workdir):
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_a_resumed_run_equals_an_uninterrupted_one(train, same, tmp_path):
    whole = train("whole", evaluate=distance)
    train("parts", evaluate=distance, steps=13)
    train("parts", evaluate=distance, steps=17)
    parts = train("parts", evaluate=distance)
    assert same(
        (whole.params, whole.ema, whole.opt_state), (parts.params, parts.ema, parts.opt_state)
    )
    curve, again = (
        [line for line in Workdir(tmp_path / name).read_metrics() if line["group"] == "train"]
        for name in ("whole", "parts")
    )
    assert untimed(curve) == untimed(again)
    assert [line["step"] for line in curve] == [4, 8, 12, 16, 20, 24, 28]


def test_loss_falls_and_the_average_follows(train, tmp_path):
    state = train("run", steps=300, log_every=100, checkpoint=CheckpointConfig())
    losses = [line["loss"] for line in Workdir(tmp_path / "run").read_metrics()]
    assert losses[-1] < 0.5 * losses[0]
    gap = np.abs(np.asarray(state.params["kernel"]) - np.asarray(state.ema["kernel"])).max()
    assert 0 < gap < 0.1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_and_the_next_start_goes_on(
    train, batches, same, tmp_path, capsys, number
):
    whole = train("whole")
    stopping = batches(at={11: lambda: os.kill(os.getpid(), number)})
    stopped = train("stopped", batches=stopping)
    assert int(stopped.step) == 12
    assert saved(tmp_path / "stopped")[-1] == 12
    assert f"stopped by {number.name} after step 12" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert same(train("stopped").params, whole.params)


def test_a_signal_cuts_an_evaluation_short_and_it_is_made_again(train, tmp_path):
    evaluated = []

    def evaluate(state, step, ended):
        evaluated.append(step)
        if len(evaluated) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        return distance(state, step, ended)

    assert int(train("run", evaluate=evaluate).step) == 10
    train("run", evaluate=evaluate)
    train("run", evaluate=evaluate)  # finished: nothing is left to do
    assert evaluated == [10, 10, 20, 30]
    lines = [line for line in Workdir(tmp_path / "run").read_metrics() if line["group"] == "eval"]
    assert [line["score"] for line in lines] == [0.0, -10.0, -20.0]


def test_a_batch_that_is_not_finite_is_skipped_and_counted(train, batches, tmp_path):
    state = train("run", batches=batches(bad=(3, 4)), steps=8)
    assert int(state.step) == 8
    assert all(np.isfinite(leaf).all() for leaf in state.params.values())
    lines = Workdir(tmp_path / "run").read_metrics()
    assert [line["skipped"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_only_bad_batches_end_the_run_with_a_message(train, batches):
    with pytest.raises(UserError, match=r"^5 steps in a row .* not finite; try a lower optim"):
        train("run", batches=batches(bad=tuple(range(6, 30))))


def test_the_last_and_the_best_checkpoints_are_kept(train, tmp_path):
    checkpoint = CheckpointConfig(every_steps=3, keep_last=2, best_metric="score", keep_best=1)
    train("run", evaluate=distance, checkpoint=checkpoint)
    assert saved(tmp_path / "run") == [10, 27, 30]


def test_an_evaluation_without_the_best_metric_is_the_users_error(train):
    checkpoint = CheckpointConfig(best_metric="sisdr")
    with pytest.raises(UserError, match=r"best_metric=sisdr: evaluated were \['score'\]"):
        train("run", evaluate=distance, checkpoint=checkpoint)


def test_time_ends_a_run_too(train, batches, tmp_path):
    evaluated = []
    slow = batches(at={2: lambda: time.sleep(0.7)})

    def evaluate(state, step, ended):
        evaluated.append((step, ended))
        return {}

    state = train("run", batches=slow, max_minutes=0.01, eval_every=2, evaluate=evaluate)
    assert int(state.step) < 30
    assert evaluated[0] == (2, False)
    assert evaluated[-1] == (int(state.step), True)
    assert saved(tmp_path / "run")[-1] == int(state.step)
    assert int(train("run", max_minutes=0.01).step) == int(state.step)


def test_a_workdir_of_another_config_is_refused(train):
    train("run", steps=4)
    with pytest.raises(
        UserError, match=r"another config \(optim\.peak_lr: saved 0\.01, now 0\.1\)"
    ):
        train("run", optim=OptimConfig(peak_lr=0.1, warmup_steps=5))
    checkpoint = CheckpointConfig(every_steps=2)
    assert int(train("run", steps=6, log_every=1, checkpoint=checkpoint).step) == 6


def test_a_workdir_without_checkpoints_takes_another_config(train, batches):
    def fail():
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError):
        train("run", batches=batches(at={0: fail}))
    assert int(train("run", seed=1, steps=3).step) == 3


def test_a_folder_with_other_things_is_left_alone(train, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(UserError, match=r"not empty and holds no config\.json"):
        train("thesis")
    assert len(list((tmp_path / "thesis").iterdir())) == 1


def test_a_line_cut_short_and_lines_beyond_the_checkpoint_are_dropped(train, tmp_path):
    train("run", steps=12)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 99, "group": "train", "loss": 1.0}) + '\n{"step": 1')
    train("run", steps=16)
    assert [line["step"] for line in Workdir(tmp_path / "run").read_metrics()] == [4, 8, 12, 16]


@pytest.mark.parametrize("steps", [12, 5])
def test_a_profile_is_recorded_even_of_a_short_run(train, tmp_path, steps):
    train("run", steps=steps, profile=True)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_an_average_that_starts_as_the_parameters_can_be_donated(train):
    assert int(train("run", steps=2).step) == 2


def test_the_step_refuses_arrays_that_are_not_on_the_devices(train, batches, monkeypatch):
    """A batch of NumPy arrays would be transferred inside the step, which the guard forbids."""
    monkeypatch.setattr(loop, "to_devices", lambda batch, mesh: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train("run", batches=batches(), steps=2)


def test_the_parameters_are_listed_at_the_start(train, tmp_path, capsys):
    train("run", steps=1)
    table = (tmp_path / "run" / "parameters.txt").read_text().splitlines()
    assert [line.split()[:2] for line in table[1:]] == [
        ["bias", "8"],
        ["kernel", "64"],
        ["all", "72"],
    ]
    assert table[2].split()[4:] == ["float32", "8x8", "replicated"]
    assert table[2] in capsys.readouterr().err
