"""A table of ratings from recordings: whole, the same for a seed, resumed, with checkpoints."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sam_audio_jax import audio
from sam_audio_jax.data.config import MixConfig, SourceConfig
from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.data.ratings import RatingsConfig, load_ratings
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.simulated_ratings import UNTOUCHED, SimulationConfig, separate_all, simulate
from sam_audio_jax.files import read_jsonl, write_jsonl
from tools import simulated_ratings

CONFIG = SimulationConfig(
    source=SourceConfig(split="valid"), mix=MixConfig(seconds=1.0), sample_rate=8000, outputs=9
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two mixtures of the embedded recordings with all nine kinds, made in two calls."""
    folder = tmp_path_factory.mktemp("simulated") / "table"
    simulate(folder, CONFIG, 1)
    simulate(folder, CONFIG, 2)
    return folder


def test_every_kind_is_there_and_both_prompts_are_rated(folder):
    rows, outputs = read_jsonl(folder / "ratings.jsonl"), read_jsonl(folder / "outputs.jsonl")
    assert [row["id"] for row in rows] == [one["id"] for one in outputs]
    assert {row["system"] for row in rows} == {*KINDS, UNTOUCHED}
    pairs = load_ratings(str(folder / "ratings.jsonl"), RatingsConfig())
    assert len(pairs) == len(rows) >= 18
    by_id = {one["id"]: (row, one) for row, one in zip(rows, outputs, strict=True)}
    for row, one in by_id.values():
        assert (not one["kinds"]) == (row["system"] == UNTOUCHED)
        assert all(0.1 <= kind["strength"] <= 1 for kind in one["kinds"])
        if row["system"] == UNTOUCHED and one["prompt"] == "own":
            assert row["ratings"]["precision"] > 4.5
            assert one["si_sdr"] > 60
        if one["other"]:
            other, _ = by_id[one["other"]]
            assert other["separated"] == row["separated"]
            assert other["text"] != row["text"]


def test_a_mixture_is_a_function_of_seed_and_number(folder, tmp_path):
    def files(root):
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    before = files(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "00000")
    (copy / ".00007.part-1").mkdir()  # what a killed process left
    (copy / ".00007.part-1" / "rows.jsonl").write_text("{}\n")
    simulate(copy, CONFIG, 2)
    shutil.rmtree(copy / ".00007.part-1")
    assert files(copy) == before
    with pytest.raises(UserError, match="was made from another plan: seed: saved 0, now 1; name"):
        simulate(copy, dataclasses.replace(CONFIG, seed=1), 2)
    assert files(copy) == before


def test_a_field_that_is_newer_than_the_folder_has_its_default(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    plan = json.loads((copy / "plan.json").read_text())
    del plan["mix"]["reverb_share"]
    (copy / "plan.json").write_text(json.dumps(plan))
    simulate(copy, CONFIG, 2)
    assert (copy / "plan.json").read_bytes() == (folder / "plan.json").read_bytes()


def test_a_checkpoints_outputs_are_systems_of_their_own(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    calls, by = [], ["run", "f00", None]

    def separate(mixture, sample_rate, text):
        calls.append((text, sample_rate))
        return mixture

    separate_all(copy, CONFIG, "early", separate, 2, by=by)
    count = len(calls)
    separate_all(copy, CONFIG, "early", separate, 2, by=by)  # nothing is left to do
    assert len(calls) == count >= 2
    assert calls[0][1] == 8000
    rows = [row for row in read_jsonl(copy / "ratings.jsonl") if row["system"] == "early"]
    assert len(rows) >= count
    for row in rows:
        assert row["ratings"]["recall"] > 4  # of the mixture itself
    load_ratings(str(copy / "ratings.jsonl"), RatingsConfig())
    with pytest.raises(UserError, match="the name of a system"):
        separate_all(copy, CONFIG, "a/b", separate, 1, by=by)
    for other in (["run", "f00", "wiener"], ["run", "f01", None], ["runs", "f01", None]):
        with pytest.raises(UserError, match="separations 'early' by run f00, not run"):
            separate_all(copy, CONFIG, "early", separate, 2, by=other)
    moved = ["runs", "f00", None, "exponent 1.2"]  # the folder says nothing of exponents yet
    separate_all(copy, CONFIG, "early", separate, 2, by=moved)
    shutil.rmtree(copy / "00001.early")
    separate_all(copy, CONFIG, "early", separate, 2, by=moved)
    harder = [*moved[:3], "exponent 2"]
    with pytest.raises(UserError, match=r"by runs f00 exponent 1.2, not runs f00 exponent 2:"):
        separate_all(copy, CONFIG, "early", separate, 2, by=harder)
    separate_all(copy, CONFIG, "late", separate, 1, by=["run", "f01", None])
    (copy / "systems.json").unlink()
    with pytest.raises(UserError, match="'early' by an unknown model, not run f00: give another"):
        separate_all(copy, CONFIG, "early", separate, 2, by=by)


def test_a_folder_is_not_continued_with_other_recordings(tmp_path):
    """Rows of a separation name the mixture that is there, so that it must be of that."""
    rng, out = np.random.default_rng(0), tmp_path / "out"
    lines = []
    for name in ("dog barking", "rain falling", "engine humming", "wind howling"):
        audio.write_wav(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal((1, 16_000)), 8000)
        line = {"id": name, "path": f"{name}.wav", "caption": name, "category": "sfx"}
        lines.append(line | {"source_id": name, "duration": 2.0, "license": "CC0-1.0"})
    manifest = tmp_path / "manifest.jsonl"
    config = dataclasses.replace(
        CONFIG,
        source=SourceConfig(manifests=(str(manifest),)),
        mix=MixConfig(seconds=1.0, recipes=(("sfx", "sfx", 1.0),)),
        outputs=2,
    )

    def separate(mixture, sample_rate, text):
        return mixture

    write_jsonl(manifest, lines[:3])
    simulate(out, config, 2)
    corrected = [line | {"caption": f"far {line['caption']}"} for line in lines[:3]]
    for changed in (lines[1:], corrected):
        write_jsonl(manifest, changed)
        simulate(out, config, 2)  # nothing is to be added
        before = sorted(out.rglob("*"))
        with pytest.raises(UserError, match=r"out/00000 is not the mixture that its plan makes"):
            separate_all(out, config, "model", separate, 2, by=["run", "f00"])
        with pytest.raises(UserError, match="recordings or captions, or the code that mixes, have"):
            simulate(out, config, 3)
        assert sorted(out.rglob("*")) == before
    write_jsonl(manifest, lines[:3])
    simulate(out, config, 3)
    separate_all(out, config, "model", separate, 3, by=["run", "f00"])
    with pytest.raises(UserError, match="out has no mixture 00003: give a --count that makes it"):
        separate_all(out, config, "model", separate, 4, by=["run", "f00"])


def test_a_model_gives_a_waveform_as_long_as_the_mixture():
    mixture = np.random.default_rng(0).normal(0, 0.1, 8001).astype(np.float32)
    for refine in (None, "wiener"):
        wave = simulated_ratings.separate("tiny", refine, mixture, 16000, "speech")
        assert wave.shape == mixture.shape
        assert np.abs(wave - mixture).max() > 0.01
    with pytest.raises(UserError, match="tiny separates at 16000 Hz, not at 8000 Hz"):
        simulated_ratings.separate("tiny", None, mixture, 8000, "speech")


def test_a_parquet_table_is_read_as_its_lines_are(folder):
    rows = read_jsonl(folder / "ratings.jsonl")
    rows[0]["ratings"] = {"overall": [4.0, None, 5.0], "recall": [], "precision": [2.0]}
    for row in rows[1:]:
        row["ratings"] = {axis: [value] for axis, value in row["ratings"].items()}
    lines = folder / "again.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = folder / "again.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    one, other = (load_ratings(str(path), RatingsConfig()) for path in (lines, table))
    assert one == other
    assert np.isnan(one[0].target[1])
    assert one[0].target[0] == 4.5
    rows[1]["ratings"]["overall"] = [7.0]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    with pytest.raises(UserError, match=r"again.parquet line 2: overall has the rating 7"):
        load_ratings(str(table), RatingsConfig())
    table.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        load_ratings(str(table), RatingsConfig())


def test_unknown_kinds_are_refused():
    with pytest.raises(UserError, match="must be some of wrong source"):
        SimulationConfig(kinds=("hum",))
