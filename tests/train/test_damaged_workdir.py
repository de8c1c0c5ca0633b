"""A run whose checkpoints are whole goes on, whatever happened to the small files beside them."""

import json
import pathlib
import shutil

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig
from sam_audio_jax.workdir import METADATA, Workdir, find_checkpoint

STEPS, MORE = 14, 15
SCORED = CheckpointConfig(every_steps=7, keep_last=2, best_metric="score")


def score(state, step, ended):
    del state, ended
    return {"score": float(step)}


@pytest.fixture
def run(train, tmp_path) -> Workdir:
    train("run", steps=STEPS, evaluate=score, eval_every=7, checkpoint=SCORED)
    return Workdir(tmp_path / "run")


@pytest.fixture
def go_on(train):
    def start(**fields):
        return train(
            "run",
            **{"steps": MORE, "evaluate": score, "checkpoint": SCORED, "eval_every": 7} | fields,
        )

    return start


def damage(path: pathlib.Path, content: str | None):
    """Replaces what is there by a text, by a folder with a file in it, or by nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if content == "FOLDER":
        path.mkdir()
        (path / "file").touch()
    elif content is not None:
        path.write_text(content)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": null}', "\0\0\0", "FOLDER", None])
def test_the_config_comes_back_from_the_checkpoint(run, go_on, capsys, content):
    whole = run.config_file.read_text()
    damage(run.config_file, content)
    found = find_checkpoint(str(run.path))
    assert found is not None
    assert found.run["config"] == json.loads(whole)["config"]
    with pytest.raises(
        UserError, match=r"another config \(optim\.peak_lr: saved 0\.01, now 0\.5\)"
    ):
        go_on(optim=OptimConfig(peak_lr=0.5, warmup_steps=5))
    go_on()
    text = capsys.readouterr().err
    was = "missing" if content is None else "damaged"
    assert f"warning: {run.config_file} was {was}: checkpoint {STEPS} has its content" in text
    assert json.loads(run.config_file.read_text()) == json.loads(
        whole.replace(f'"steps": {STEPS}', f'"steps": {MORE}')
    )
    assert run.steps() == [STEPS, MORE]


def test_a_config_of_another_run_is_replaced_by_that_of_the_checkpoints(run, go_on, capsys):
    other = json.loads(run.config_file.read_text())
    other["config"]["optim"]["peak_lr"] = 0.5
    run.config_file.write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"peak_lr: saved 0\.01, now 0\.5"):
        go_on(optim=OptimConfig(peak_lr=0.5, warmup_steps=5))
    go_on()
    assert "config.json was of another run than the checkpoints" in capsys.readouterr().err
    assert run.read_config()["config"]["optim"]["peak_lr"] == 0.01


def forget_config(run: Workdir):
    """Makes the checkpoints those of a version that did not store the config in them."""
    for step in run.steps():
        file = run.checkpoint(step) / METADATA
        stored = json.loads(file.read_text())
        for name in ("config", "experiment", "format"):
            del stored["custom_metadata"][name]
        file.write_text(json.dumps(stored))


def test_without_any_config_the_sizes_of_the_checkpoint_decide(run, go_on, capsys):
    forget_config(run)
    damage(run.config_file, "")
    go_on()
    assert "neither" in capsys.readouterr().err
    assert run.read_config()["experiment"] == "RunConfig"


def test_the_other_files_are_written_anew(run, go_on, capsys):
    damage(run.events, "")
    damage(run.parameters_file, "FOLDER")
    damage(run.metrics_file, "FOLDER")
    damage(run.scores_file, "\0\0")
    go_on()
    text = capsys.readouterr().err
    for path in (run.events, run.parameters_file, run.metrics_file, run.scores_file):
        assert str(path) in text
    assert run.events.is_dir()
    assert run.parameters_file.is_file()
    assert run.read_metrics()[-1]["step"] == MORE
    assert run.scores_of("score") == {
        step: float(step) for step in (STEPS, MORE)
    }  # evaluated again


def test_scores_come_back_from_the_metrics(run, go_on):
    damage(run.scores_file, "[]")
    go_on()
    assert run.scores_of("score") == {step: float(step) for step in (7, STEPS, MORE)}
