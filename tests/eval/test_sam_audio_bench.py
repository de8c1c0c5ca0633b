"""SAM Audio-Bench in its released layout, from parquet and clips to results, whoever is killed."""

import json
import shutil
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.convert.imagebind import imagebind_from_reference
from sam_audio_jax.convert.judge import save_judge
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.eval.prompting import SolverChoice
from sam_audio_jax.eval.sam_audio_bench.bench_suite import bench_suite, open_bench
from sam_audio_jax.eval.sam_audio_bench.presets import PRESETS
from sam_audio_jax.eval.sam_audio_bench.settings import SETTINGS, VISUAL_SETTINGS
from sam_audio_jax.eval.sam_audio_bench.table import read_tables, unpack_masks
from sam_audio_jax.eval.scoring import DISTANCES, Measures
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.infer.scorer_files import with_scorers
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.process_rank import ProcessRank
from sam_audio_jax.scorers.aesthetics import Aesthetics, AestheticsConfig, AestheticsScorer
from sam_audio_jax.scorers.clap import Clap
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.judge import Judge
from sam_audio_jax.scorers.judge_scorer import JudgeScorer
from tests import tiny
from tests.children import ROOT, environment
from tests.encoders.test_wavlm import TINY as WAVLM
from tests.eval.released_bench import (
    BROKEN,
    MISSING,
    OPTIONS,
    LevelScorer,
    make_bench,
    make_networks,
    packed_masks,
    row,
    save_model,
    seeing,
    write_clip,
    write_table,
)
from tests.scorers.test_clap_scorer import roberta_tokenizer
from tests.scorers.tiny_imagebind import TINY, random_state


def scorers():
    return {
        "judge": LevelScorer("text", ("overall", "recall")),
        "clap": LevelScorer("text", ("clap",)),
        "aesthetics": LevelScorer("nothing", ("CE",)),
        "imagebind": LevelScorer("video", ("imagebind",)),
    }


@pytest.fixture(scope="module")
def networks():
    return make_networks()


@pytest.fixture(scope="module")
def model(networks):
    return seeing(networks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def suite(folder, model):
    return bench_suite(open_bench(folder), model, SolverChoice())


QUICK = ("sdr", "stft")  # distances


@pytest.fixture(scope="module")
def whole(suite, model, tmp_path_factory):
    """The results of one process, its scorers, and the folder."""
    out, used = tmp_path_factory.mktemp("whole") / "out", scorers()
    scores = evaluate_model(model, suite, out, measures=Measures(used, QUICK), **OPTIONS)
    return json.loads((out / "results.json").read_text()), used, out, scores


def test_every_setting_is_separated_and_scored(whole):
    results, _, _, scores = whole
    assert list(results["mixtures"]) == list(SETTINGS)
    assert not results["not_run"]
    measured = {setting: [] for setting in SETTINGS}
    for item in results["items"]:
        measured[item["setting"]].append(item)
    for setting in SETTINGS:
        missing = [one for one in results["missing"] if one["setting"] == setting]
        assert len(measured[setting]) + len(missing) == results["mixtures"][setting]
        assert measured[setting]
        for item in measured[setting]:
            assert {"judge_overall", "judge_recall", "clap", "aesthetics_CE"} <= item.keys()
            assert ("imagebind" in item) == (setting in VISUAL_SETTINGS)
    assert scores["judge_overall/none/sfx-span/text+span"] > 0


def test_missing_and_broken_clips_are_listed(whole):
    results, _, out, _ = whole
    reasons = {(one["setting"], one["id"]): one["reason"] for one in results["missing"]}
    name = f"{MISSING}_0_1000"
    assert reasons["sfx", name] == (
        f"no recording VGGSound/{MISSING}.mp4, or already cut as {name}.mp4"
    )
    assert "cannot be decoded" in reasons["speech", f"{BROKEN}_0_1000"]
    assert len(reasons) == 3
    page = (out / "report.html").read_text()
    assert "n=4 of 6" in page  # sfx: one is missing, one broken
    assert f"<li>sfx, {name}: no recording VGGSound/" in page
    assert "SoloAudio" in page
    assert "4.35" in page  # published, of the judge, beside ours


def test_items_of_each_setting_can_be_played(folder, model, tmp_path):
    settings = ["instr-pro", "sfx-visual"]
    suite = bench_suite(open_bench(folder), model, SolverChoice(), settings=settings)
    measures = Measures(distances=("bss",))
    evaluate_model(model, suite, tmp_path / "out", measures=measures, **OPTIONS | {"listen": 1})
    items = json.loads((tmp_path / "out" / "results.json").read_text())["items"]
    known = [{"bss_sdr", "bss_sir", "bss_sar"} <= item.keys() for item in items]
    assert known == [True, True] + [False] * (len(items) - 2)  # the stems that sound
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<audio") == 5 + 3  # with true stems, without
    assert "the masked video of" in page
    names = {path.parent.name for path in (tmp_path / "out" / "audio").rglob("target.wav")}
    assert names <= {one.id for one in suite.separations}
    assert len(names) == 2


def test_scorers_see_the_words_the_spans_and_only_the_object(whole):
    results, used, _, _ = whole
    assert {view.text for view in used["clap"].views} >= {"person speaking", "piano playing"}
    assert {view.spans for view in used["clap"].views} >= {(("+", 0.1, 0.6),), ()}
    lights = [item["imagebind"] for item in results["items"] if "imagebind" in item]
    assert lights == pytest.approx([0.5] * len(lights), abs=0.05)  # half of each picture is masked


def test_known_stems_of_songs_are_compared_with(whole):
    items = {item["id"]: item for item in whole[0]["items"] if item["setting"] == "instr-pro"}
    assert list(items) == ["A - B_0_1000", "A - B_0_1000.2", "A - B_0_1000.3"]
    known = {"sisdri", "sisdr", "sdr", "stft", "logmel"}
    assert known <= items["A - B_0_1000"].keys()
    assert not known & items["A - B_0_1000.3"].keys()  # the voice is silent in this part
    described = {one["id"]: one for one in whole[0]["described"]}
    assert {"overlap", "ratio_db", "loudness_lufs", "seconds"} <= described["A - B_0_1000"].keys()


def test_two_processes_one_of_them_killed_leave_the_bytes_of_one(
    whole, suite, model, tmp_path, monkeypatch
):
    """Process 1 dies after a batch; process 0, then another process 1 of 3, then all of it."""
    out = tmp_path / "out"
    measures = Measures(scorers(), QUICK)
    separate, count = model.separate, [0]

    def dying(*arguments, **options):
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        return separate(*arguments, **options)

    def run(index, processes):
        rank = ProcessRank(index, processes)
        return evaluate_model(model, suite, out, measures=measures, rank=rank, **OPTIONS)

    with monkeypatch.context() as patch:
        patch.setattr(model, "separate", dying)
        with pytest.raises(KeyboardInterrupt):
            run(1, 2)
    assert run(0, 2) is None
    assert not out.exists()
    assert run(0, 1) == whole[3]
    for name in ("results.json", "report.html"):
        assert (out / name).read_bytes() == (whole[2] / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_setting_that_the_model_cannot_run_is_listed_or_refused(folder, networks):
    blind = SAMAudio(*networks)
    files = open_bench(folder)
    suite = bench_suite(files, blind, SolverChoice())
    assert set(suite.not_run) == set(VISUAL_SETTINGS)
    assert "no vision tower" in suite.not_run["sfx-visual"]
    with pytest.raises(UserError, match="speaker-visual cannot be run: this model has no vision"):
        bench_suite(files, blind, SolverChoice(), settings=["sfx", "speaker-visual"])
    with pytest.raises(UserError, match="prompts by text cannot be ranked: this model names no"):
        bench_suite(files, blind, SolverChoice(candidates=8), settings=["sfx"])


def test_a_scorer_of_videos_needs_a_setting_with_videos(folder, model, tmp_path):
    suite = bench_suite(open_bench(folder), model, SolverChoice(), settings=["sfx"])
    with pytest.raises(UserError, match="scorer imagebind needs a masked video, which nothing"):
        evaluate_model(model, suite, tmp_path / "out", measures=Measures(scorers()), **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_without_any_recording_of_the_chosen_items_there_is_no_report(folder, model, tmp_path):
    table = tmp_path / "t.parquet"
    write_table(table, [row(MISSING, 0.0), row("-whole", 0.5)])
    suite = bench_suite(
        open_bench(folder, [table]), model, SolverChoice(), settings=["sfx"], limit=1
    )
    with pytest.raises(UserError, match="was separated: absent-clip_0_1000: no recording VGGSound"):
        evaluate_model(model, suite, tmp_path / "out", **OPTIONS)
    assert list(tmp_path.iterdir()) == [table]


def test_the_bench_knows_clips_songs_and_masks_by_what_they_are(folder, model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)

    def files():
        suite = bench_suite(open_bench(copy), model, SolverChoice())
        return {(one.setting, one.id): one.files for one in suite.separations}

    saved = files()
    assert all(saved.values())
    assert files() == saved
    write_clip(copy / "VGGSound" / "a_b_500_1500.mp4", np.zeros(16_000, np.float32))
    song = copy / "musdb18hq" / "test" / "A - B"
    shutil.copy(song / "drums.wav", song / "bass.wav")
    changed = {name for name, one in files().items() if one != saved[name]}
    assert {name for _, name in changed} == {"a_b_500_1500", "A - B_0_1000"}
    assert len([name for _, name in changed if name == "A - B_0_1000"]) == 1  # bass alone
    saved = files()
    (table,) = (copy / "data").glob("*.parquet")
    rows = pyarrow.parquet.read_table(table).to_pylist()
    rows[0]["mask_bytes"] = packed_masks(6, 12, 16)
    write_table(table, rows)
    changed = {name for name, one in files().items() if one != saved[name]}
    assert {setting for setting, _ in changed} == set(VISUAL_SETTINGS)
    assert {name for _, name in changed} == {"-whole_500_1500"}


def test_presets_are_allowed_protocols():
    for preset in PRESETS.values():
        assert set(preset.settings) <= set(SETTINGS)
    assert PRESETS["release"].candidates == 8
    assert not PRESETS["release"].predict_spans


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"video_id": "a", "caption": "dog"}], "another table: of the columns of SAM Audio-Bench"),
        ([row("a", 1.0, end_offset=0.5)], "row 1: end_offset - start_offset=-0.5 must be"),
        ([row("a", 0.0), row("b/c", 0.0)], "row 2"),
        ([row("a", 0.0, spans=[[0.5, 0.2]])], "row 1: span 0.5-0.2 s must have"),
        ([row("a", 0.0, spans=[[0.5]])], "row 1: spans=[[0.5]] must be"),
        ([row("a", 0.0, mask_bytes="abc")], "column mask_bytes must hold bytes or nulls, not str"),
    ],
)
def test_a_table_of_another_layout_is_refused_in_one_line(rows, message, tmp_path):
    write_table(tmp_path / "t.parquet", rows)
    with pytest.raises(UserError) as error:
        read_tables(tmp_path, [tmp_path / "t.parquet"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_is_there_twice_is_refused_in_one_line(tmp_path):
    for place in (tmp_path, tmp_path / "data"):
        write_table(place / "t.parquet", [row("a", 0.0), row("b", 0.0)])
    with pytest.raises(UserError, match=r"/t\.parquet has the rows of .*, which would count"):
        read_tables(tmp_path)
    with pytest.raises(UserError, match=r"t\.parquet is named twice"):
        read_tables(tmp_path, [tmp_path / "t.parquet"] * 2)
    (tmp_path / "t.parquet").rename(tmp_path / "subset.parquet")
    write_table(tmp_path / "subset.parquet", [row("b", 0.0)])
    with pytest.raises(UserError, match=r"/t\.parquet has the rows of .*/subset\.parquet, which"):
        read_tables(tmp_path)
    (tmp_path / "subset.parquet").unlink()
    write_table(tmp_path / "t.parquet", [row("a", 0.0), row("b", 0.0, description="rain")])
    assert len(read_tables(tmp_path).clips) == 4  # two prompts of one part


def test_a_damaged_column_of_masks_is_the_users_error(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, [row("a", 0.0)])
    columns = pyarrow.parquet.read_metadata(path).row_group(0)
    (masks,) = (
        column
        for column in map(columns.column, range(columns.num_columns))
        if column.path_in_schema == "mask_bytes"
    )
    start, content = masks.dictionary_page_offset, bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    (clip,) = read_tables(tmp_path).clips  # they are read when an item needs them
    with pytest.raises(UserError, match=r"mask_bytes of .*t\.parquet cannot be read: "):
        clip.mask_bytes()


@pytest.mark.parametrize(
    ("changes", "setting", "reason"),
    [
        ({"description": " ?"}, "sfx", "the description of a_b_500_1500, ' ?', has no words"),
        ({"spans": [[1.0, 2.0]]}, "sfx-span", "a_b_500_1500 has no span that begins before its"),
        ({"mask_bytes": None}, "sfx-visual", "a_b_500_1500 has no mask in the table"),
    ],
)
def test_an_item_without_its_prompt_is_in_no_number(
    folder, model, tmp_path, changes, setting, reason
):
    write_table(tmp_path / "t.parquet", [row("a_b", 0.5, **changes)])
    suite = bench_suite(
        open_bench(folder, [tmp_path / "t.parquet"]), model, SolverChoice(), settings=[setting]
    )
    with pytest.raises(UserError, match=r"nothing of sam-audio-bench was separated: ") as error:
        evaluate_model(model, suite, tmp_path / "out", **OPTIONS)
    assert reason in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]  # and it is tried anew


def test_folders_without_table_or_clips_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no table of SAM Audio-Bench: put its"):
        open_bench(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR?")
    with pytest.raises(UserError, match=r"x\.parquet is no parquet file"):
        open_bench(tmp_path)
    write_table(tmp_path / "t.parquet", [row("a", 0.0)])
    with pytest.raises(UserError, match=r"has no recording of the 1 rows .* VGGSound/a\.mp4"):
        open_bench(tmp_path)
    with pytest.raises(UserError, match="no table at"):
        open_bench(tmp_path, [tmp_path / "absent.parquet"])


@pytest.mark.parametrize("kind", ["text", "pickle", "absent", "shape"])
def test_broken_masks_are_the_users_error(kind, tmp_path):
    packed = {
        "text": lambda: b"no zip file",
        "pickle": lambda: saved(video_masklet=np.array([types.SimpleNamespace()], object)),
        "absent": lambda: saved(other=np.zeros((1, 2, 2))),
        "shape": lambda: saved(video_masklet=np.zeros((2, 2))),
    }

    def saved(**arrays):
        np.savez(tmp_path / "m.npz", **arrays)
        return (tmp_path / "m.npz").read_bytes()

    with pytest.raises(UserError, match="the mask of x"):
        unpack_masks(packed[kind](), "x")
    assert unpack_masks(packed_masks(3, 4, 6), "x").shape == (3, 4, 6)


@pytest.mark.long
def test_real_scorers_score_every_setting_and_rank_candidates(folder, networks, tmp_path):
    """The networks of all four kinds, tiny, with the published rules of ranking."""
    judge = JudgeScorer(filled_judge(), tokenizer_for("byt5"))
    network = tiny.filled(lambda: Clap(tiny.CLAP, rngs=Rngs(0)))
    config = AestheticsConfig(wavlm=WAVLM, sample_rate=1_000, window=60, head_layers=3)
    used = {
        "judge": judge,
        "clap": ClapScorer(network, roberta_tokenizer(), ClapScoring(via_wav=True)),
        "aesthetics": AestheticsScorer(
            tiny.filled(lambda: Aesthetics(config, rngs=Rngs(0))), windows=4
        ),
        "imagebind": ImageBindScorer(imagebind_from_reference(random_state(), TINY), clips=4),
    }
    solver = SolverChoice(candidates=2)
    model = seeing(networks, rankers=with_scorers(Rankers(), used))
    suite = bench_suite(open_bench(folder), model, solver)
    out, measures = tmp_path / "out", Measures(used, tuple(DISTANCES))
    evaluate_model(model, suite, out, solver=solver, measures=measures, **OPTIONS)
    results = json.loads((out / "results.json").read_text())
    columns = {f"judge_{axis}" for axis in judge.axes} | {"clap", "level"}
    columns |= {f"aesthetics_{axis}" for axis in ("CE", "CU", "PC", "PQ")}
    for item in results["items"]:
        has = columns | ({"imagebind"} if item["setting"] in VISUAL_SETTINGS else set())
        assert has <= item.keys()
        assert np.isfinite([item[name] for name in has]).all()
    assert {item["setting"] for item in results["items"]} == set(SETTINGS)
    changed = Measures(used | {"judge": JudgeScorer(filled_judge(1), tokenizer_for("byt5"))})
    assert changed.as_dict() != Measures(used).as_dict()  # an unfinished run would be refused


def filled_judge(seed: int = 0) -> Judge:
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)), seed)
    judge.mean[...], judge.std[...] = jnp.array([3.0, 2, 4, 1]), jnp.array([1.0, 0.5, 2, 1])
    return judge


@pytest.mark.long
@pytest.mark.processes
def test_a_process_killed_half_way_is_continued_by_two(folder, networks, tmp_path):
    """Real processes: one alone; two of which one is killed at random work, then both again."""
    save_model(tmp_path / "model", networks)
    save_judge(tmp_path / "judge", filled_judge(), "byt5")

    def start(out: str, *more: str) -> subprocess.Popen:
        command = [sys.executable, "launch/evaluate.py", "--checkpoint", str(tmp_path / "model")]
        command += ["--bench", "sam-audio-bench", "--media", str(folder), "--listen", "1"]
        command += ["--out", str(tmp_path / out), "--steps", "1", "--method", "euler", *more]
        command += ["--scorers", f"judge={tmp_path / 'judge'}"]
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)

    def log() -> str:
        return (tmp_path / "log").read_text()[-2000:]

    assert start("whole").wait(600) == 0, log()
    killed = start("out", "--process", "1", "--processes", "2")
    partial = tmp_path / "out.partial"
    try:
        give_up = time.monotonic() + 600
        while not list(partial.glob("separations-*.npz")):
            assert killed.poll() is None, log()
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.wait()
    pair = [start("out", "--process", str(n), "--processes", "2") for n in range(2)]
    assert [one.wait(600) for one in pair] == [0, 0], log()
    for name in ("results.json", "report.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not partial.exists()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {item["setting"] for item in results["items"]} == set(SETTINGS)
    assert all("judge_overall" in item for item in results["items"])
