"""The acceptance of a judge: which rows each training gets, and the report."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from sam_audio_jax import config
from sam_audio_jax.data.config import MixConfig, SourceConfig
from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.judge_in_training import check_best_metric
from sam_audio_jax.eval.simulated_ratings import SimulationConfig, simulate
from sam_audio_jax.files import read_jsonl, write_jsonl
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.workdir import METADATA
from tools import judge_acceptance


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three mixtures with an output of every kind."""
    folder = tmp_path_factory.mktemp("tables") / "table"
    source = SourceConfig(split="valid")
    simulation = SimulationConfig(
        source=source, mix=MixConfig(seconds=0.5), sample_rate=8000, outputs=8, kinds=tuple(KINDS)
    )
    simulate(folder, simulation, 3)
    return folder


def test_trainings_lack_a_kind_or_the_texts_and_a_second_call_trains_nothing(
    folder, tmp_path, monkeypatch, capsys
):
    trained = []

    def train(self, run):
        command = self._command(run)
        _, _, cfg = config.run_options(command, "", command="", kind=JudgeTrainConfig)
        check_best_metric(cfg, None)  # no evaluation while it trains

    def score(self, run):
        trained.append(run.name)
        return (self.valid.truth + np.random.default_rng(0).normal(size=(1, 4))).tolist()

    monkeypatch.setattr(judge_acceptance.Acceptance, "_run", train)
    monkeypatch.setattr(judge_acceptance.Acceptance, "_score", score)
    out = tmp_path / "out"
    encoders = tmp_path / "encoders"
    encoders.mkdir()
    (encoders / "model.safetensors").write_text("first")
    tables = ["--train", str(folder), "--valid", str(folder), "--encoders", str(encoders)]
    assert judge_acceptance.main([*tables, "--out", str(out)]) == 0
    assert len(trained) == 1 + 2 * len(KINDS)
    assert judge_acceptance.main([*tables, "--out", str(out)]) == 0
    assert len(trained) == 1 + 2 * len(KINDS)
    rows = read_jsonl(folder / "ratings.jsonl")
    kinds = {one["id"]: one["kinds"] for one in read_jsonl(folder / "outputs.jsonl")}
    left = read_jsonl(out / "without-leakage" / "train.jsonl")
    assert 0 < len(left) < len(rows)
    for row in left:
        assert "leakage" not in {one["kind"] for one in kinds[row["id"]]}
    blind = read_jsonl(out / "without-leakage-and-text" / "train.jsonl")
    assert {row["text"] for row in blind} == {"sound"}
    assert len(blind) == len(left)
    assert len(read_jsonl(out / "all-kinds" / "train.jsonl")) == len(rows)
    report = json.loads((out / "acceptance.json").read_text())
    # Text or no text, both judges of this test know the truth: neither is better.
    assert set(report["left out"]) == set(KINDS)
    assert report["better than both"]["both axes"] == 0
    assert report["exchanged prompts"]["all"]["mean"] == 1
    assert report["order of checkpoints"] is None
    page = (out / "acceptance.md").read_text()
    assert page.count("\n| wrong source | ") == 2
    assert page in capsys.readouterr().out
    assert judge_acceptance.main([*tables, "--out", str(out), "--steps", "7"]) == 2
    assert f"{out} is of another experiment: steps differ" in capsys.readouterr().err
    assert judge_acceptance.main([*tables, "--out", str(out), "--batch", "2"]) == 2
    assert "flags differ" in capsys.readouterr().err
    (encoders / "model.safetensors").write_text("trained on")
    assert judge_acceptance.main([*tables, "--out", str(out)]) == 2
    assert "weights differ" in capsys.readouterr().err
    (encoders / "model.safetensors").write_text("first")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    write_jsonl(other / "ratings.jsonl", rows[::-1])
    write_jsonl(other / "outputs.jsonl", read_jsonl(folder / "outputs.jsonl")[::-1])
    assert judge_acceptance.main([*tables, "--valid", str(other), "--out", str(out)]) == 2
    assert "valid differ" in capsys.readouterr().err


def test_a_training_that_was_stopped_is_not_measured(folder, tmp_path, monkeypatch, capsys):
    """A signal and `--max-minutes` end it with status 0."""
    reached = [3]

    def stopped(command):
        run = pathlib.Path(command[command.index("--workdir") + 1])
        checkpoint = run / "checkpoints" / str(reached[0])
        checkpoint.mkdir(parents=True)
        (checkpoint / METADATA).write_text("{}")
        return 0

    def score(self, run):
        raise UserError(f"{run.name} is measured")

    monkeypatch.setattr(judge_acceptance.train_judge, "main", stopped)
    monkeypatch.setattr(judge_acceptance.Acceptance, "_score", score)
    command = ["--train", str(folder), "--valid", str(folder), "--encoders", str(folder)]
    command += ["--out", str(tmp_path / "out"), "--steps", "9"]
    assert judge_acceptance.main(command) == 2
    assert "run is at step 3 of 9: the same call goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "all-kinds" / "scores.json").exists()
    reached[0] = 9
    assert judge_acceptance.main(command) == 2
    assert "all-kinds is measured" in capsys.readouterr().err


def test_a_table_without_a_kind_is_refused_before_any_training(folder, tmp_path, capsys):
    some = tmp_path / "some"
    some.mkdir()
    for name in ("ratings.jsonl", "outputs.jsonl"):
        pairs = zip(read_jsonl(folder / name), read_jsonl(folder / "ratings.jsonl"), strict=True)
        write_jsonl(some / name, [line for line, row in pairs if row["system"] != "smear"])
    command = ["--train", str(folder), "--valid", str(some), "--encoders", str(folder)]
    assert judge_acceptance.main([*command, "--out", str(tmp_path / "out")]) == 2
    assert f"{some} has no output of smear, by which" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
