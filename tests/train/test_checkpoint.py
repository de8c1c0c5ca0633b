import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from sam_audio_jax.config import FREE
from sam_audio_jax.convert.training_run import read_item
from sam_audio_jax.errors import UserError
from sam_audio_jax.train.config import CheckpointConfig, RunConfig
from sam_audio_jax.workdir import METADATA, Workdir
from tests.train.conftest import CONFIG


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated(RunConfig):
    eval_bench: str = dataclasses.field(default="", metadata=FREE)


def test_parameters_are_read_without_the_rest(train, tmp_path):
    state = train("run")
    step = tmp_path / "run" / "checkpoints" / "30"
    for item in ("rest", "params"):
        shutil.rmtree(step / item)
    kernel = jax.ShapeDtypeStruct((8, 8), np.float32)
    restored = read_item(step, "ema", {"kernel": kernel})
    assert list(restored) == ["kernel"]
    np.testing.assert_array_equal(restored["kernel"], state.ema["kernel"])
    with pytest.raises(UserError, match="no params in checkpoint"):
        read_item(step, "params", {"kernel": kernel})


def test_what_a_killed_save_left_is_cleaned_up_and_not_counted(train, tmp_path):
    train("run", steps=8)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    assert Workdir(tmp_path / "run").steps() == [7, 8]
    train("run", steps=10)
    assert Workdir(tmp_path / "run").steps() == [8, 10]
    assert not list(folder.glob("*tmp*"))


def test_values_that_are_not_those_that_were_saved_are_not_restored(train, tmp_path, capsys):
    """Stands for a bit that flips in what Orbax wrote, which it does not always notice."""
    train("run", steps=14)
    run = Workdir(tmp_path / "run")
    file = run.checkpoint(14) / METADATA
    stored = json.loads(file.read_text())
    stored["custom_metadata"]["checksum"] = "0" * 16
    file.write_text(json.dumps(stored))
    train("run", steps=15)
    errors = capsys.readouterr().err
    assert "checkpoint 14 cannot be read (its values have another checksum" in errors
    assert "the run goes on from 7" in errors
    file = run.checkpoint(15) / METADATA
    stored = json.loads(file.read_text())
    del stored["custom_metadata"]["checksum"]  # as an earlier version wrote it
    file.write_text(json.dumps(stored))
    assert int(train("run", steps=16).step) == 16
    assert run.steps()[-2:] == [15, 16]


def test_metadata_that_orbax_cannot_read_are_one_line(train, tmp_path):
    train("run", steps=14)
    file = Workdir(tmp_path / "run").checkpoint(14) / METADATA
    file.write_text(file.read_text().replace("commit_timestamp_nsecs", "commit_time"))
    with pytest.raises(UserError, match=r"the metadata of a checkpoint in .* is damaged"):
        train("run", steps=15)


def test_the_best_step_is_the_best_that_was_kept(train, tmp_path):
    for highest, best in (("highest", 10), ("lowest", 30)):
        checkpoint = CheckpointConfig(best_metric="score", best_is=highest)
        train(highest, evaluate=lambda s, n, _: {"score": -abs(n - 10.0)}, checkpoint=checkpoint)
        assert Workdir(tmp_path / highest).best_step() == best


def test_another_best_metric_ranks_the_steps_by_itself(train, tmp_path):
    """Decibels are not ranked with losses, neither by what is kept nor by WORKDIR/best."""

    def evaluate(state, step, ended):
        del state, ended
        return {"decibels": float(step), "loss": 1 + abs(step - 4.0) / 100}

    def start(steps, metric, best_is):
        checkpoint = CheckpointConfig(
            every_steps=2, keep_last=1, keep_best=1, best_metric=metric, best_is=best_is
        )
        train("run", steps=steps, evaluate=evaluate, eval_every=2, checkpoint=checkpoint)
        return Workdir(tmp_path / "run")

    run = start(4, "decibels", "highest")
    assert json.loads(run.scores_file.read_text()) == {"2": 2.0, "4": 4.0, "metric": "decibels"}
    run = start(10, "loss", "lowest")
    assert json.loads(run.scores_file.read_text())["metric"] == "loss"
    assert run.read_scores().values == {n: 1 + abs(n - 4.0) / 100 for n in (2, 4, 6, 8, 10)}
    assert (run.steps(), run.best_step()) == ([4, 10], 4)
    run.write_scores("", run.read_scores().values | {4: -9.0, 10: 1.5})
    values = json.loads(run.scores_file.read_text())
    del values["metric"]  # as an earlier version wrote it
    run.scores_file.write_text(json.dumps(values))
    # Checkpoint 4 says that its score is in decibels, checkpoint 10 that it is a loss.
    assert run.scores_of("loss")[4] == 1.0
    assert run.scores_of("loss")[10] == 1.5


def test_scores_of_another_bench_are_not_ranked_with_those_of_this_one(
    train, tmp_path, capsys, monkeypatch
):
    """Nor are those of which only the checkpoints say how they were measured, as before 0.2.0."""
    monkeypatch.setattr("tests.train.conftest.CONFIG", Evaluated(**vars(CONFIG)))

    def start(steps, bench, score):
        checkpoint = CheckpointConfig(every_steps=2, keep_last=4, best_metric="score")
        fields = {"eval_every": 2, "checkpoint": checkpoint, "eval_bench": bench}
        train("run", steps=steps, evaluate=lambda s, n, e: {"score": score - n}, **fields)
        return Workdir(tmp_path / "run")

    assert start(4, "easy", 50.0).best_step() == 2
    run = start(4, "hard", 10.0)  # nothing is evaluated
    assert "scores of steps 2, 4 (eval_bench) were measured otherwise" in capsys.readouterr().err
    for _ in ("named", "old"):
        with pytest.raises(UserError, match=r"steps 2, 4 \(eval_bench\) was measured otherwise"):
            run.best_step()
        values = json.loads(run.scores_file.read_text())
        run.scores_file.write_text(json.dumps({step: values[step] for step in ("2", "4")}))
    run = start(8, "hard", 10.0)
    assert run.best_step() == 6
    assert set(run.scores_of("score")) == {6, 8}
    assert "were measured" in capsys.readouterr().err
    start(9, "hard", 10.0)
    assert "were measured" not in capsys.readouterr().err


def test_a_score_that_is_not_finite_is_never_the_best(train, tmp_path):
    def evaluate(state, step, ended):
        return {"score": {10: np.nan, 20: 0.5, 30: np.inf}[step]}

    checkpoint = CheckpointConfig(best_metric="score", best_is="highest", keep_last=1)
    train("run", evaluate=evaluate, checkpoint=checkpoint)
    run = Workdir(tmp_path / "run")
    assert (run.read_scores().values, run.best_step()) == ({20: 0.5}, 20)
    run.scores_file.unlink()
    assert run.scores_of("score") == {20: 0.5}
