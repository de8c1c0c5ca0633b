"""A workdir belongs to one run, is found by its paths, and is refused when it is newer."""

import dataclasses
import json

import pytest

from sam_audio_jax import config
from sam_audio_jax.errors import UserError
from sam_audio_jax.workdir import FORMAT, Workdir, find_checkpoint


@dataclasses.dataclass(frozen=True)
class Best:
    best_is: str = "highest"


@dataclasses.dataclass(frozen=True)
class Run:
    rate: float = 0.1
    steps: int = dataclasses.field(default=10, metadata=config.FREE)
    checkpoint: Best = dataclasses.field(default_factory=Best)


@dataclasses.dataclass(frozen=True)
class OtherRun(Run):
    pass


def save(workdir, *steps):
    for step in steps:
        workdir.checkpoint(step).mkdir(parents=True)
        (workdir.checkpoint(step) / "_CHECKPOINT_METADATA").touch()


def edit(workdir, **changes):
    values = json.loads(workdir.config_file.read_text()) | changes
    workdir.config_file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def step_of(path):
    checkpoint = find_checkpoint(str(path))
    assert checkpoint.folder.name == str(checkpoint.step)
    assert checkpoint.fields("rate")["rate"] == 0.1
    with pytest.raises(UserError, match="is the workdir of a Run, which has no codec"):
        checkpoint.fields("codec")
    return checkpoint.step


def test_a_workdir_belongs_to_one_run_from_its_first_checkpoint_on(tmp_path):
    path = tmp_path / "new" / "run"
    Workdir.open(path, OtherRun())
    workdir = Workdir.open(path, Run(rate=0.2))
    assert workdir.read_config()["config"]["rate"] == 0.2
    save(workdir, 5)
    Workdir.open(path, Run(rate=0.2, steps=20))
    assert workdir.read_config()["config"]["steps"] == 20
    with pytest.raises(UserError, match=r"another config \(rate: saved 0\.2, now 0\.3\)"):
        Workdir.open(path, Run(rate=0.3))
    with pytest.raises(UserError, match="belongs to a Run, not to a OtherRun"):
        Workdir.open(path, OtherRun())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / ".config.12345678.part.json").touch()  # of a process that was killed
    Workdir.open(tmp_path, Run())
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "config.json").rename(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="not empty and holds no config"):
        Workdir.open(tmp_path, Run())
    with pytest.raises(UserError, match="not empty and holds no config"):
        Workdir.open(tmp_path / "notes.txt", Run())
    with pytest.raises(UserError, match="is not the workdir of a run"):
        Workdir(tmp_path).read_config()


def test_a_workdir_without_a_format_is_of_the_first_and_a_newer_one_is_refused(tmp_path):
    workdir = Workdir.open(tmp_path, Run())
    edit(workdir, format=None)
    assert workdir.read_config()["experiment"] == "Run"
    edit(workdir, format=FORMAT + 1)
    for read in (workdir.read_config, lambda: Workdir.open(tmp_path, Run())):
        with pytest.raises(UserError, match=f"has format {FORMAT + 1}, .* reads 1 to {FORMAT}: "):
            read()


def test_a_path_means_one_checkpoint_of_a_run(tmp_path):
    path = tmp_path / "run"
    workdir = Workdir.open(path, Run())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        find_checkpoint(str(path))
    save(workdir, 5, 10, 20)
    (workdir.checkpoints / "30").mkdir()  # not whole
    assert step_of(path) == 20
    assert step_of(path / "checkpoints" / "5") == 5
    with pytest.raises(UserError, match=r"no checkpoint .*30; saved are \[5, 10, 20\]"):
        find_checkpoint(str(path / "checkpoints" / "30"))
    with pytest.raises(UserError, match="no scored checkpoint"):
        find_checkpoint(str(path / "best"))
    workdir.write_scores("score", {5: 1.0, 10: 3.0, 20: 2.0, 40: 9.0})
    assert step_of(path / "best") == 10
    assert find_checkpoint(str(tmp_path)) is None
