import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys
from typing import Literal

import pytest

from sam_audio_jax import config
from sam_audio_jax.errors import UserError
from sam_audio_jax.train.config import (
    AudioTextTrainConfig,
    CodecTrainConfig,
    JudgeTrainConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

ROOT = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 8
    rates: tuple[int, ...] = (2, 3)
    pairs: tuple[tuple[str, float], ...] = (("a", 0.5),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    kind: Literal["one", "two"] = "one"
    rate: float = 0.1
    steps: int = dataclasses.field(default=5, metadata=config.FREE)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(
        "from sam_audio_jax.train.config import OptimConfig, RunConfig\n"
        "CONFIG = RunConfig(optim=OptimConfig(peak_lr=1e-3), batch=8, steps=10)\n"
    )
    return str(path)


def test_flags_override_the_file(file):
    cfg = config.from_cli([file, "--optim.peak-lr", "3e-4", "--steps", "4"])
    assert (cfg.optim.peak_lr, cfg.steps, cfg.batch) == (3e-4, 4, 8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--optim.peak-l", "4"], "Perhaps you meant: --optim.peak-lr"),
        (["--mesh.fsdp", "-1", "--mesh.data", "-1"], "at most one axis can be -1"),
        (["--batch", "9", "--optim.accumulate", "2"], "batch=9 must be a multiple of"),
        (["--steps", "many"], "--steps"),
    ],
)
def test_a_wrong_flag_is_one_line(file, flags, message):
    with pytest.raises(UserError) as caught:
        config.from_cli([file, *flags])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_config_is_the_users_error(tmp_path):
    (tmp_path / "empty.py").write_text("")
    for argv, message in (
        ([str(tmp_path / "empty.py")], "defines no CONFIG"),
        ([str(tmp_path / "absent.py")], "no config file"),
        (
            [],
            "no config file given; shipped: audio_text_tiny, base, codec, codec_tiny, ",
        ),
        (["qiuckstart"], "no config file qiuckstart; did you mean quickstart"),
    ):
        with pytest.raises(UserError, match=message):
            config.from_cli(argv)


def test_a_config_has_the_kind_that_the_command_needs(file):
    assert config.from_cli([file], RunConfig).batch == 8
    with pytest.raises(UserError, match="holds a RunConfig, not a TrainConfig"):
        config.from_cli([file], TrainConfig)


def test_a_shipped_config_has_a_name_and_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find_file("tiny") == config.find_file("tiny.py") == ROOT / "configs" / "tiny.py"
    assert config.from_cli(["small@v5e-256"], TrainConfig).batch == 1024
    (tmp_path / "tiny.py").write_text("CONFIG = None")
    assert config.find_file("tiny.py").resolve() == tmp_path / "tiny.py"


def test_a_config_imports_its_siblings_and_leaves_no_trace(tmp_path):
    path, modules = list(sys.path), set(sys.modules)
    for steps in (3, 4):  # two folders with files of the same names
        folder = tmp_path / str(steps)
        folder.mkdir()
        (folder / "start.py").write_text(
            f"from sam_audio_jax.train.config import RunConfig\nCONFIG = RunConfig(steps={steps})\n"
        )
        (folder / "more.py").write_text("from start import CONFIG\n")
        assert config.from_cli([str(folder / "more.py")]).steps == steps
    assert sys.path == path
    assert not {"start", "more"} & (set(sys.modules) - modules)


@pytest.mark.processes
@pytest.mark.parametrize(
    "original",
    [
        TrainConfig(),
        CodecTrainConfig(),
        JudgeTrainConfig(frozen=()),
        AudioTextTrainConfig(),
    ],
)
def test_a_run_may_go_on_with_other_workers(original):
    """No batch depends on them."""
    other = dataclasses.replace(original, data=dataclasses.replace(original.data, workers=3))
    assert not config.differences(config.to_dict(original), other)


@pytest.mark.parametrize(("name", "shipped"), [("train", "tiny"), ("train_codec", "codec_tiny")])
def test_training_commands_print_one_line_and_end_with_status_2(name, shipped, tmp_path):
    command = [sys.executable, f"launch/{name}.py", shipped, "--workdir", str(tmp_path / "w")]
    done = subprocess.run(
        [*command, "--no-such-key", "3"],
        cwd=ROOT,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unrecognized options: --no-such-key")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "original",
    [
        Outer(inner=Inner(rates=(5,), pairs=(("b", 1.0), ("c", 2.0))), kind="two"),
        RunConfig(optim=OptimConfig(peak_lr=2e-3)),
        CodecTrainConfig(),
        TrainConfig(),
    ],
)
def test_a_config_survives_json(original):
    values = json.loads(json.dumps(config.to_dict(original)))
    assert config.from_dict(type(original), values) == original


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"widht": 3}}, "unknown config key inner.widht; allowed: width, rates, pairs"),
        ({"inner": 3}, "config inner must be a dict, not 3"),
        ({"rate": "fast"}, "config rate must be float, not 'fast'"),
        ({"inner": {"pairs": [["a"]]}}, "config inner.pairs needs 2 values, got 1"),
    ],
)
def test_a_dict_that_does_not_fit_is_the_users_error(values, message):
    with pytest.raises(UserError) as caught:
        config.from_dict(Outer, values)
    assert message in str(caught.value)


def test_whole_numbers_fit_where_floats_belong():
    assert config.from_dict(Outer, {"rate": 1}).rate == 1.0


def test_differences_name_fields_and_spare_the_free_ones():
    saved = config.to_dict(Outer())
    new = Outer(inner=Inner(rates=(2, 4)), kind="two", steps=9)
    assert config.differences(saved, new) == [
        "inner.rates: saved (2, 3), now (2, 4)",
        "kind: saved 'one', now 'two'",
    ]
    del saved["rate"]  # written before the field existed
    assert config.differences(saved, Outer(steps=7)) == []


def test_run_options_need_a_workdir_and_a_config(file, tmp_path):
    def read(*argv):
        return config.run_options(list(argv), "", command="train", kind=RunConfig)

    folder, profile, cfg = read(file, "--workdir", str(tmp_path), "--batch", "2")
    assert (folder, profile, cfg.batch) == (tmp_path, False, 2)
    with pytest.raises(UserError, match="no --workdir given"):
        read(file)
    with pytest.raises(UserError, match="is an address"):
        read(file, "--workdir", "gs://bucket/run")
    with pytest.raises(UserError, match="no config file given"):
        read("--workdir", "x")


def test_a_file_may_hold_several_recipes(file):
    with open(file, "a") as more:
        more.write("RECIPES = {'short': RunConfig(steps=3)}\n")
    assert config.from_cli([file]).steps == 10
    assert config.from_cli([f"{file}@short"]).steps == 3
    assert config.from_cli([f"{file}@short", "--steps", "4"]).steps == 4
    with pytest.raises(UserError, match=r"no recipe 'long'; it has: short"):
        config.from_cli([f"{file}@long"])


def test_every_recipe_of_the_paper_is_shipped():
    for size, budget in (("small", 96_000), ("base", 120_000), ("large", 144_000)):
        for slice_ in ("v5e-256", "v5p-512", "v6e-256"):
            cfg = config.from_cli([str(ROOT / "configs" / f"{size}.py") + f"@{slice_}"])
            assert (cfg.batch, cfg.data.mix.seconds, cfg.steps) == (1024, 30.0, 500_000)
            assert (cfg.alignment.weight, cfg.data.prompts.text_dropout) == (1.0, 0.3)
            fine = config.from_cli([str(ROOT / "configs" / f"{size}.py") + f"@finetune-{slice_}"])
            assert (fine.batch, fine.data.batches.token_budget, fine.steps) == (0, budget, 300_000)
            assert (fine.alignment.weight, fine.data.prompts.text_dropout) == (0.0, 0.0)
            assert fine.optim.ema_decay == 0.999


def test_each_recipe_of_tiny_differs_from_that_of_the_shipped_model_in_one_thing():
    shipped = config.from_cli(["tiny@vectors"])
    changed = {}
    for name in ("captions", "near", "single", "filters", "offset", "speed", "pairs", "absent"):
        recipe = config.from_cli([f"tiny@no-{name}"])
        found = config.differences(config.to_dict(shipped), recipe)
        changed[name] = {line.split(":")[0] for line in found}
    assert all(changed.values())
    for one, other in itertools.combinations(changed.values(), 2):
        assert not one & other
    plain = config.from_cli(["tiny@plain"]).data
    assert plain.prompts.pair_share == plain.prompts.absent_share == plain.mix.near_share == 0
