"""The switch-off table: recipes that differ in one part, and changes over pairs of mixtures."""

import argparse
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from sam_audio_jax import config
from sam_audio_jax.cli import prepare
from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import SourceConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_json
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.workdir import Workdir
from tests.eval.listing import make_folder, three_lines
from tools import experiment, switch_off


def recipe(name: str) -> TrainConfig:
    return config.from_cli([f"tiny@{name}"], TrainConfig)


@pytest.mark.parametrize("name", [*switch_off.PROMPTED][1:])
def test_each_recipe_reads_the_same_cache_and_differs_in_one_part(name):
    whole, other = recipe(switch_off.WHOLE), recipe(name)
    assert (other.data.mix, other.data.source) == (whole.data.mix, whole.data.source)
    if name == "words":
        assert other.train_text
        assert not whole.train_text
        prompts = dataclasses.replace(other.data.prompts, tokenizer=whole.data.prompts.tokenizer)
        assert prompts == whole.data.prompts
        return
    fields = {field.name for field in dataclasses.fields(whole.data.prompts)}
    changed = {
        one
        for one in fields
        if getattr(whole.data.prompts, one) != getattr(other.data.prompts, one)
    }
    assert len(changed) == 1
    prompts = whole.data.prompts
    data = dataclasses.replace(other.data, prompts=prompts)
    assert dataclasses.replace(other, data=data) == whole


@pytest.mark.parametrize("name", [*switch_off.MIXED])
def test_what_differs_in_mixtures_differs_in_nothing_else(name):
    whole, other = recipe(switch_off.WHOLE), recipe(name)
    data = dataclasses.replace(other.data, mix=whole.data.mix)
    assert other != whole
    assert dataclasses.replace(other, data=data) == whole


def test_every_recipe_without_a_part_can_be_measured():
    with pytest.raises(UserError) as shipped:
        recipe("none")
    names = {name for name in str(shipped.value).split("it has: ")[1].split(", ")}
    assert {name for name in names if name.startswith("no-")} == {
        name for name in switch_off.PARTS if name.startswith("no-")
    }


def test_a_part_of_the_mixtures_has_a_cache_of_the_same_recordings_seed_and_size(
    tmp_path, monkeypatch
):
    """The flags that the tool gives to `prepare` are those that the shared cache was made with."""
    prepared = []

    def run(arguments):
        assert arguments[0] == "prepare"
        options, flags = prepare.read_options(arguments[1:])
        write_json(options.out / "cache.json", {})
        prepared.append((options, config.from_cli([options.config, *flags], TrainConfig).data))

    monkeypatch.setattr(experiment, "run", run)
    shared = recipe("words").data
    source = SourceConfig(
        manifests=("a b.jsonl", "c"), tfds_fields=(("x", "y"), ("z", "z")), streamed=True
    )
    shared = dataclasses.replace(shared, source=source, seed=5)
    cache = tmp_path / "cache"
    plan = {"recipe": pipeline.recipe(shared), "shards": 3, "per_shard": 64}
    write_json(cache / "cache.json", plan)
    options = argparse.Namespace(cache=cache, out=tmp_path / "out")
    assert switch_off.cache_of(options, "no-pairs") == cache
    for _ in range(2):
        folder = switch_off.cache_of(options, "no-near")
    ((called, data),) = prepared
    assert (called.config, called.out, called.items) == ("tiny@no-near", folder, 192)
    assert (data.source, data.seed) == (source, 5)
    assert data.mix == dataclasses.replace(shared.mix, near_share=0.0)


def results(gain: float) -> dict:
    """Forty mixtures that differ far more than recipes do."""
    hard = np.random.default_rng(0).normal(size=40) * 9
    kinds = {"text": gain, "text+span": 6.0}
    named = [{"id": str(n), "setting": "sfx"} for n in range(40)]
    items = [
        one | {"row": f"model/{refine}/{kind}", "sisdri": more + value}
        for one, value in zip(named, hard, strict=True)
        for kind, more in kinds.items()
        for refine in ("none", "wiener")
    ]
    items += [one | {"row": "model/wiener/absent", "absent_level": -20 - gain} for one in named]
    items[-1]["absent_level"] = -900.0  # a median does not mind
    row = {"row": "model/wiener/text"}
    return {
        "items": items,
        "following": [one | row | {"following": int(one["id"]) < 20 + gain} for one in named],
        "reworded": [one | {"row": "model/wiener/capitals", "reworded": 0.5} for one in named],
    }


def test_an_evaluation_is_of_the_list_and_the_scorers_of_now(tmp_path, monkeypatch, capsys):
    def run(arguments):
        write_json(pathlib.Path(arguments[arguments.index("--out") + 1]) / "results.json", {})

    monkeypatch.setattr(experiment, "run", run)
    bench, judge, out = (tmp_path / name for name in ("bench", "judge", "eval/arm-0"))
    make_folder(bench, three_lines())
    write_json(judge / "config.json", {})

    def evaluate():
        flags = ["--scorers", f"judge={judge}"]
        experiment.evaluate(tmp_path, str(bench), out, ["text"], limit=None, flags=flags)

    evaluate()
    evaluate()
    assert [path.name for path in out.parent.glob("arm-*")] == ["arm-0"]
    make_folder(bench, three_lines()[:2])
    with pytest.raises(UserError, match="arm-0 was measured with another bench than is there now"):
        evaluate()
    make_folder(bench, three_lines())
    write_json(judge / "config.json", {"trained": "again"})
    with pytest.raises(
        UserError, match=r"with another scorer .*judge than is there now: delete it"
    ):
        evaluate()
    assert not capsys.readouterr().err
    shutil.rmtree(out)
    evaluate()
    (out.parent / ".arm-0.contents.json").unlink()  # of an earlier version
    evaluate()
    assert "arm-0 is taken for one of the mixtures of now" in capsys.readouterr().err


def test_changes_are_those_of_pairs(tmp_path, monkeypatch, capsys):
    """One command trains, evaluates and writes the table; the second call repeats nothing."""
    ran = []

    def run(arguments):
        ran.append(arguments)
        place = (
            pathlib.Path(arguments[arguments.index("--workdir") + 1])
            if ("--workdir" in arguments)
            else pathlib.Path(arguments[arguments.index("--out") + 1])
        )
        if arguments[0] == "train":
            flags = [one for one in arguments[1:] if one not in ("--workdir", str(place))]
            trained = config.from_cli(flags, TrainConfig)
            assert (trained.steps, trained.data.cache, trained.log_every) == (7, str(cache), 5)
            Workdir(place).checkpoint(7).mkdir(parents=True)
            (Workdir(place).checkpoint(7) / "_CHECKPOINT_METADATA").write_text("{}")
        else:
            write_json(place / "results.json", results(3.0 if place.name == "vectors" else 1.0))

    monkeypatch.setattr(experiment, "run", run)
    cache = tmp_path / "cache"
    write_json(cache / "cache.json", {})
    command = ["--cache", str(cache), "--bench", "embedded", "--out", str(tmp_path / "out")]
    command += ["--steps", "7", "--recipes", "no-pairs", "--log-every", "5"]
    assert switch_off.main(command) == 0
    _, _, whole, without, change = capsys.readouterr().out.splitlines()
    assert [one[0] for one in ran] == ["train", "evaluate"] * 2
    assert whole.startswith("| `vectors`, all parts |")
    assert without.startswith("| `no-pairs`, without both prompts")
    cells = [cell.strip() for cell in change.split("|")[1:-1]]
    assert cells[1] == "-2.0 (-2.0 to -2.0)"  # the mixtures cancel
    assert cells[4] == "+0.0 (+0.0 to +0.0)"
    assert cells[5].startswith("-5.0")
    assert cells[7] == "+2.0 (+2.0 to +2.0)"
    assert switch_off.main(command) == 0
    assert len(ran) == 4
    assert switch_off.main([*command, "--steps", "8"]) == 2
    assert "is of another experiment: steps differ" in capsys.readouterr().err


def test_nothing_is_built_on_a_training_that_was_stopped(tmp_path, monkeypatch):
    """A training that a signal stops has status 0; what follows must not take it for finished."""

    def stopped(arguments):
        Workdir(tmp_path).checkpoint(3).mkdir(parents=True)
        (Workdir(tmp_path).checkpoint(3) / "_CHECKPOINT_METADATA").write_text("{}")

    monkeypatch.setattr(experiment, "run", stopped)
    with pytest.raises(UserError, match="is at step 3 of 7: the same call goes on"):
        experiment.train("tiny", tmp_path, 7, [])


def test_captions_are_told_apart():
    columns = switch_off.columns_of(results(1.0), known={"1", "2"}, new={"3"})
    assert [len(columns[name]) for name in ("known captions", "new captions", "text, dB")] == [
        *(2, 1, 40)
    ]


def test_a_folder_without_a_cache_is_refused(tmp_path, capsys):
    options = ["--cache", str(tmp_path), "--bench", "embedded", "--out", str(tmp_path / "out")]
    assert switch_off.main(options) == 2
    assert "is no latent cache" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
