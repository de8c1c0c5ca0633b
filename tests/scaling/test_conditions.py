"""What a study that has measured losses refuses to change, and what it still takes."""

import dataclasses
import json
import shutil

import pytest
from array_record.python import array_record_module

from sam_audio_jax.cli.scaling import claim
from sam_audio_jax.data.config import DataConfig, MixConfig
from sam_audio_jax.data.pipeline import recipe
from sam_audio_jax.data.shards import FORMAT
from sam_audio_jax.errors import UserError
from sam_audio_jax.scaling import study as studies
from sam_audio_jax.scaling.measured import StudyFolder
from sam_audio_jax.scaling.study import StudyConfig, StudyRun, runs
from sam_audio_jax.train.config import OptimConfig
from tests.eval.listing import make_folder, three_lines
from tests.train.tiny import CONFIG

BASE = dataclasses.replace(
    CONFIG, optim=OptimConfig(warmup_steps=10), eval_bench="embedded", batch=4
)


@pytest.fixture(autouse=True)
def _formula(monkeypatch):
    """Operations by a formula, as counting them takes a second for each size."""
    monkeypatch.setattr(studies, "per_step", lambda config: 10**9)


def study(base=None, **fields) -> StudyConfig:
    chosen = dataclasses.replace(BASE, **(base or {}))
    return StudyConfig(**({"base": chosen, "widths": (16,), "steps": (100, 200)} | fields))


def measure(folder: StudyFolder, run: StudyRun) -> None:
    """What a run that is done has logged."""
    workdir = folder.workdir(run)
    workdir.path.mkdir(parents=True, exist_ok=True)
    lines = [{"step": n, "group": "eval", "flow_loss/live/all": 1.0} for n in run.measured]
    workdir.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def begun(path, config: StudyConfig) -> StudyFolder:
    """The folder of a study whose runs are done."""
    folder = StudyFolder(path)
    claim(folder, config)
    for run in runs(config):
        measure(folder, run)
    return folder


def make_cache(path, items: int, **mix) -> str:
    """A latent cache whose records nothing reads."""
    path.mkdir()
    mixed = recipe(DataConfig(mix=MixConfig(**mix)))
    index = {"format": FORMAT, "shards": 1, "per_shard": items, "recipe": mixed}
    (path / "cache.json").write_text(json.dumps(index))
    writer = array_record_module.ArrayRecordWriter(
        str(path / "00000.arrayrecord"), "group_size:1,uncompressed"
    )
    for _ in range(items):
        writer.write(b"record")
    writer.close()
    return str(path)


def on(cache: str) -> StudyConfig:
    return study({"data": dataclasses.replace(BASE.data, cache=cache)})


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"eval_bench": "other"}, "base.eval_bench: saved 'embedded', now 'other'"),
        ({"eval_limit": 5}, "base.eval_limit: saved 0, now 5"),
    ],
)
def test_losses_of_a_study_are_of_the_same_mixtures(tmp_path, base, message):
    folder = StudyFolder(tmp_path)
    claim(folder, study(base))  # nothing is measured yet
    claim(folder, study())
    saved = folder.config_file.read_text()
    measure(folder, runs(study())[0])
    with pytest.raises(UserError, match="has measured losses") as error:
        claim(folder, study(base))
    assert message in str(error.value)
    assert folder.config_file.read_text() == saved
    claim(folder, study(widths=(16, 32)))


def test_a_bench_whose_list_was_changed_is_another(tmp_path, capsys):
    bench = tmp_path / "bench"
    make_folder(bench, three_lines())
    config = study({"eval_bench": str(bench)})
    folder = begun(tmp_path / "study", config)
    claim(folder, config)
    make_folder(bench, three_lines()[:2])
    with pytest.raises(UserError, match="bench has not the mixtures that were measured"):
        claim(folder, config)
    assert not capsys.readouterr().err
    kept = json.loads(folder.caches_file.read_text())
    del kept["bench"]
    folder.caches_file.write_text(json.dumps(kept))  # of an earlier version
    claim(folder, config)
    assert "are taken for those before" in capsys.readouterr().err
    make_folder(bench, three_lines())
    with pytest.raises(UserError, match="bench has not the mixtures that were measured"):
        claim(folder, config)


def test_a_cache_may_be_moved_but_not_be_another(tmp_path, capsys):
    first = make_cache(tmp_path / "first", 3)
    folder = begun(tmp_path / "study", on(first))
    longer = make_cache(tmp_path / "longer", 4)
    with pytest.raises(UserError, match=r"saved .*first with 3 items, now .*longer with 4"):
        claim(folder, on(longer))
    other = make_cache(tmp_path / "other", 3, second_share=0.9)
    with pytest.raises(UserError, match=r"now .*other with 3 of another recipe"):
        claim(folder, on(other))
    with pytest.raises(UserError, match=r"base.data.cache: saved \('.*first',\), now \(\)"):
        claim(folder, on(""))
    moved = str(shutil.move(first, tmp_path / "moved"))
    claim(folder, on(moved))
    assert json.loads(folder.config_file.read_text())["base"]["data"]["cache"] == moved
    shutil.rmtree(moved)
    make_cache(tmp_path / "moved", 5)  # anew, in its place
    with pytest.raises(UserError, match=r"saved .*moved with 3 items, now .*moved with 5"):
        claim(folder, on(moved))
    assert not capsys.readouterr().err


def test_a_cache_is_known_to_a_study_of_an_earlier_version_while_it_is_in_its_place(
    tmp_path, capsys
):
    first = make_cache(tmp_path / "first", 3)
    longer = make_cache(tmp_path / "longer", 4)
    folder = begun(tmp_path / "study", on(first))
    folder.caches_file.unlink()
    with pytest.raises(UserError, match=r"now .*longer with 4\)"):
        claim(folder, on(longer))
    shutil.rmtree(first)
    claim(folder, on(longer))
    assert "the cache is taken for the one before: no latent cache" in capsys.readouterr().err
    folder.caches_file.write_text("{}")
    with pytest.raises(UserError, match=r"caches\.json is damaged"):
        claim(folder, on(longer))


@pytest.mark.parametrize(
    ("design", "name", "saved"),
    [("grid", "steps", (100, 200)), ("isoflop", "budgets", (1e11, 2e11))],
)
def test_the_place_of_a_finished_run_in_its_list_stays(tmp_path, design, name, saved):
    fields = {"design": design, name: saved}
    folder = begun(tmp_path, study(**fields))
    before = {run.name: run.config.seed for run in runs(study(**fields))}
    one, two = saved
    for values in ((one / 2, one, two), (one, 1.5 * one, two), (two,)):
        values = tuple(type(one)(value) for value in values)
        with pytest.raises(UserError, match=f"{name}: saved .* only the end may change"):
            claim(folder, study(**fields | {name: values}))
    longer = study(**fields | {name: (*saved, 3 * one)})
    claim(folder, longer)
    after = {run.name: run.config.seed for run in runs(longer)}
    assert before.items() <= after.items()
    claim(folder, study(**fields))


def test_a_step_that_a_run_is_past_is_refused(tmp_path):
    folder = begun(tmp_path, study())
    with pytest.raises(UserError, match="steps: 150 is new, and run w16-s0 is past it, at 200"):
        claim(folder, study(steps=(100, 150, 200)))
    claim(folder, study(steps=(200,)))
    claim(folder, study(steps=(100, 200, 400)))  # 100 is measured


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"design": "isoflop", "budgets": (1.0001e12, 1.0002e12)}, "w16-c1e[+]12-s0"),
        ({"design": "rates", "steps": (100,), "rates": (1e-3, 1.0000001e-3)}, "w16-r0.001-s0"),
    ],
)
def test_runs_of_one_name_are_refused(fields, name):
    with pytest.raises(UserError, match=f"2 runs would have the name {name}"):
        runs(study(**fields))
