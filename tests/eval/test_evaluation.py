"""The whole evaluation with a model that knows the true stems: its scores and its files."""

import dataclasses
import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import audio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import mixtures, scoring
from sam_audio_jax.eval.evaluation import _Run, evaluate_model
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.eval.prompting import SolverChoice
from sam_audio_jax.eval.results import ranked
from sam_audio_jax.eval.score_store import partial_folder
from sam_audio_jax.eval.suite import choose, contents_of_bench, fixed_suite
from sam_audio_jax.eval.summary import summary
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.process_rank import ProcessRank
from tests.eval.listing import Oracle, event, make_folder, three_lines
from tests.tiny import CODEC, filled

QUICK = {"prompts": ["text"], "listen": 0, "with_baselines": False, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "bench"
    make_folder(path, three_lines())
    return path


@pytest.fixture(scope="module")
def oracle(folder):
    codec = filled(lambda: Codec(CODEC, rngs=Rngs(0)))
    bench = load_bench(folder)
    mixtures = [render(bench, item) for item in bench.mixtures]
    return lambda **options: Oracle(codec, mixtures, **options)


@pytest.fixture(scope="module")
def good(oracle, folder, tmp_path_factory):
    """A model that knows the true stems, its scores, and the folder that holds `out`."""
    workdir = tmp_path_factory.mktemp("good")
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "group": "train", "loss": 1 / s}) + "\n" for s in (1, 2, 3))
    )
    model = oracle()
    options = {"batch": 4, "solver": SolverChoice(steps=2, seed=7), "listen": 1, "workdir": workdir}
    scores = evaluate_model(model, folder, workdir / "out", progress=False, **options)
    return model, scores, workdir


def test_a_good_model_scores_well(good):
    model, scores, _ = good
    assert {call[0] for call in model.calls} == {4}  # the last batch is filled up
    assert all(call[2:] == (7, {"steps": 2}) for call in model.calls)
    assert scores["sisdri/none/all/text"] > 15
    assert scores["sisdri/wiener/sfx/span"] > 15
    assert scores["logmel/wiener/all/text"] < scores["logmel/mixture/all"]
    assert scores["sisdri/mixture/all"] == 0
    assert scores["sisdri/oracle/all"] > 15
    assert scores["following/wiener/all/text"] == 1
    assert "following/wiener/speech/span" not in scores  # its two sounds are always on


def test_everything_is_written(good):
    _, _, workdir = good
    assert {path.name for path in workdir.iterdir()} == {"out", "metrics.jsonl"}
    results = json.loads((workdir / "out" / "results.json").read_text())
    assert results["mixtures"] == {"sfx": 2, "speech": 1}
    assert results["not_told_apart_by_spans"] == ["b"]
    chosen = {"seed": 7, "steps": 2, "method": "midpoint", "grid": "uniform", "level_db": None}
    assert chosen.items() <= results["settings"].items()  # the method and grid are the model's
    rows = {row["row"] for row in results["items"]}
    assert {"mixture", "codec", "codec+wiener", "oracle", "model/wiener/text+span"} <= rows
    page = (workdir / "out" / "report.html").read_text()
    assert page.count("<audio") == 2 * 7
    assert "Training loss" in page
    assert "http" not in page  # needs no other file
    wavs = {path.relative_to(workdir / "out").as_posix() for path in workdir.rglob("*.wav")}
    assert "audio/b/target.wav" in wavs


def test_baselines_know_the_stems(good):
    items = json.loads((good[2] / "out" / "results.json").read_text())["items"]
    mixture = {row["id"]: row for row in items if row["row"] == "mixture"}
    best = {row["id"]: row for row in items if row["row"] == "oracle"}
    assert all(row["sisdri"] == 0 for row in mixture.values())
    assert all(best[name]["sisdr"] > row["sisdr"] + 8 for name, row in mixture.items())
    assert np.isfinite([row["logmel_residual"] for row in items]).all()


def test_a_model_that_ignores_prompts_follows_none(oracle, folder, tmp_path):
    model, out = oracle(ignores_prompts=True), tmp_path / "out"
    scores = evaluate_model(model, folder, out, **QUICK)
    assert scores["sisdri/none/all/text"] > 15
    assert scores["following/none/all/text"] == 0  # the same stem is no better than itself
    assert not any(name.startswith("sisdri/oracle") for name in scores)


def test_outputs_that_are_not_finite_are_counted_not_averaged(oracle, folder, tmp_path):
    scores = evaluate_model(oracle(broken=True), folder, tmp_path / "out", **QUICK)
    assert "sisdri/none/all/text" not in scores
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["not_finite"] == 5
    assert results["items"][-1]["sisdr"] is None


def test_silent_targets_keep_their_number_and_are_counted(oracle, folder, tmp_path, capsys):
    """SI-SDR of silence is 0 dB, as torchmetrics has it: here better than every mixture is."""
    kinds = ["text", "absent"]
    lines = [line | {"absent": "piano"} for line in three_lines()]
    lines[0]["residual"] = [event("hum", samples=16_000, gain=10.0)]
    make_folder(tmp_path / "bench", lines)
    bench = load_bench(tmp_path / "bench")
    model = oracle(silent=True)
    model.known = {
        one.mixture.tobytes(): one for one in map(partial(render, bench), bench.mixtures)
    }
    evaluate_model(model, tmp_path / "bench", tmp_path / "out", **QUICK | {"prompts": kinds})
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = [row for row in results["items"] if row["row"] == "model/none/text"]
    assert [row["sisdr"] for row in rows] == [0.0, 0.0, 0.0]
    assert rows[0]["sisdri"] > 10
    assert all(row["silent"] and "silent_residual" not in row for row in rows)
    of_text = [one for one in results["silent"] if one["row"] == "model/none/text"]
    assert [(one["id"], one["stem"]) for one in of_text] == [(name, "target") for name in "abc"]
    assert {one["row"].split("/")[2] for one in results["silent"]} == {"text"}  # absent: is right
    words = "6 separated stems are digital silence where the true stem is not (model/none/text, ta"
    assert f"warning: {words}" in capsys.readouterr().err
    assert words in (tmp_path / "out" / "report.html").read_text()
    assert "6 are of digital silence" in summary(tmp_path / "out" / "results.json")


def test_an_older_result_is_replaced_whole_and_a_failure_leaves_it(oracle, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(UserError, match="prompt 'image'"):
        evaluate_model(oracle(), folder, out, prompts=["image"], progress=False)
    assert (out / "old").exists()
    first = evaluate_model(oracle(), folder, out, **QUICK)
    assert {path.name for path in out.iterdir()} == {"report.html", "results.json"}
    before = (out / "results.json").read_bytes()
    assert first == evaluate_model(oracle(), folder, out, **QUICK)
    assert (out / "results.json").read_bytes() == before


def test_a_limit_alternates_between_the_settings(folder):
    mixtures = load_bench(folder).mixtures
    assert [item.id for item in choose(mixtures, 2)] == ["a", "b"]
    assert [item.id for item in choose(mixtures, 3)] == ["a", "b", "c"]
    assert len(choose(mixtures, None)) == 3
    with pytest.raises(UserError, match="limit 0 must be at least 1"):
        choose(mixtures, 0)


def test_two_processes_in_any_order_leave_the_bytes_of_one(oracle, good, folder, tmp_path):
    options = {"batch": 4, "solver": SolverChoice(steps=2, seed=7), "listen": 1, "workdir": good[2]}
    out, first, second = tmp_path / "out", oracle(), oracle()
    for model, index in ((first, 1), (second, 0)):
        rank = ProcessRank(index, 2)
        scores = evaluate_model(model, folder, out, progress=False, rank=rank, **options)
        assert scores == (None if index else good[1])
        assert out.exists() == (not index)
    assert len(first.calls) + len(second.calls) == len(good[0].calls)
    for name in ("results.json", "report.html"):
        assert (out / name).read_bytes() == (good[2] / "out" / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class OverallScorer:
    """Says 3 of everything."""

    needs, axes, about = "nothing", ("overall",), "says <3>"

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        return {"overall": np.full(candidates.shape[:2], 3.0)}


def test_beside_known_stems_a_network_is_named_and_comes_second(oracle, folder, tmp_path):
    measures = scoring.Measures({"judge": OverallScorer()})
    options = QUICK | {"prompts": ["text", "span"], "with_baselines": True, "measures": measures}
    evaluate_model(oracle(), folder, tmp_path / "out", **options)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="tile"') == 3 + 1
    assert page.index("<h2>SI-SDR improvement of the") < page.index("<h2>Judge of the target")
    assert "Networks that scored here: judge: OverallScorer; says &lt;3&gt;" in page


def test_a_killed_evaluation_goes_on_where_it_stopped(oracle, folder, tmp_path):
    out, rank, model = tmp_path / "out", ProcessRank(), oracle()
    separate, calls = model.separate, iter(range(1))

    def killed(*arguments, **options):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return separate(*arguments, **options)

    model.separate = killed
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(model, folder, out, rank=rank, **QUICK | {"batch": 2})
    assert not out.exists()
    for other in ({"solver": SolverChoice(seed=1)}, {"loaded": {"dtype": "bfloat16"}}):
        with pytest.raises(UserError, match="an unfinished evaluation of another model or with"):
            evaluate_model(oracle(), folder, out, rank=rank, **QUICK | {"batch": 2} | other)
    fresh, named = oracle(), {"loaded": {"checkpoint": "a name of it"}}
    scores = evaluate_model(fresh, folder, out, rank=rank, **QUICK | {"batch": 2} | named)
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["checkpoint"] == "a name of it"
    whole = oracle()
    assert scores == evaluate_model(whole, folder, tmp_path / "whole", **QUICK | {"batch": 2})
    assert len(fresh.calls) == len(whole.calls) - 1


def test_parts_of_no_known_evaluation_are_measured_anew(oracle, folder, tmp_path):
    """A process that still measures when another one writes the results leaves such a part."""
    options, out = QUICK | {"batch": 2, "rank": ProcessRank()}, tmp_path / "out"
    first, whole = oracle(), oracle(ignores_prompts=True)
    separate = first.separate

    def slow(*arguments, **named):
        if len(first.calls) == 1:
            evaluate_model(oracle(), folder, out, **options)
        return separate(*arguments, **named)

    first.separate = slow
    assert evaluate_model(first, folder, out, **options) is None
    assert list(partial_folder(out).glob("*.npz"))
    shutil.rmtree(out)
    other = oracle(ignores_prompts=True)
    scores = evaluate_model(other, folder, out, **options)
    assert scores == evaluate_model(whole, folder, tmp_path / "whole", **options)
    assert len(other.calls) == len(whole.calls)


def test_every_correction_of_a_list_makes_another_evaluation(oracle, tmp_path):
    def identity(lines, tone=1.0):
        make_folder(tmp_path / "bench", lines)
        if tone != 1.0:
            loaded = audio.load(tmp_path / "bench" / "hum.wav")
            audio.write_wav(tmp_path / "bench" / "hum.wav", tone * loaded.samples, 8_000)
        mixtures._decode.cache_clear()
        return fixed_suite(tmp_path / "bench", 8_000, ["text"]).identity

    lines = three_lines()
    saved = identity(lines)
    assert identity(lines) == saved
    assert json.loads(json.dumps(saved)) == saved
    corrections = [
        {"caption": "hissing"},
        {"spans": [[0.0, 0.9]]},
        {"residual_captions": ["humming"]},
        {"target": [event("hiss", gain=0.9)]},
        {"target": [event("beep")]},
        {"residual": [event("hum", samples=12_000)]},
    ]
    for changed in corrections:
        assert identity([lines[0] | changed, *lines[1:]]) != saved
    assert identity(lines, tone=0.9) != saved
    saved = identity([lines[0], lines[1]])  # an added line is one more item
    assert saved["items"] == identity(lines)["items"][:2]


def test_what_a_list_holds_does_not_depend_on_its_place(folder, tmp_path):
    lines = three_lines()
    make_folder(tmp_path / "bench", lines)
    assert contents_of_bench(tmp_path / "bench") == contents_of_bench(folder)
    one = contents_of_bench(folder, 1)
    assert one != contents_of_bench(folder)
    make_folder(tmp_path / "bench", [lines[0], lines[1] | {"caption": "buzz"}, lines[2]])
    assert contents_of_bench(tmp_path / "bench") != contents_of_bench(folder)
    assert contents_of_bench(tmp_path / "bench", 1) == one
    hiss = tmp_path / "bench" / "hiss.wav"
    audio.write_wav(hiss, 0.5 * audio.load(hiss).samples, 8_000)
    assert contents_of_bench(tmp_path / "bench", 1) != one


def test_another_audio_tower_makes_another_evaluation(oracle, folder):
    """Examples are read by a tower that is not among the model's own networks."""
    tower = nnx.Linear(2, 2, rngs=Rngs(0))
    predictor = nnx.Linear(3, 3, rngs=Rngs(0))
    model = oracle()
    model.pipeline.like_vectors = SimpleNamespace(
        require=lambda: SimpleNamespace(read=lambda: tower)
    )
    model.pipeline.span_finder = SimpleNamespace(predictor=(predictor, None))

    def settings(kind, **solver):
        suite = dataclasses.replace(fixed_suite(folder, 8_000, ["text"]), kinds=(kind,))
        run = _Run(model, suite, SolverChoice(**solver), scoring.Measures(), 8, 0, {})
        assert run.settings().items() >= run.separation_settings().items()
        return run.separation_settings()

    def change(network):
        network.kernel[...] = 2 * network.kernel[...]

    plain, by_example = settings("text"), settings("text+like")
    predicted = settings("text", predict_spans=True)
    assert "prompt_networks" not in plain
    change(tower)
    assert settings("text") == plain
    assert settings("text+like") != by_example
    assert settings("text", predict_spans=True) == predicted
    change(predictor)
    assert settings("text", predict_spans=True) != predicted


def test_wordings_absent_sounds_and_known_captions_are_reported_apart(oracle, tmp_path):
    lines = three_lines()
    lines[0] |= {"seen": True, "absent": "piano", "alt_caption": "air"}
    lines[2] |= {"seen": False, "absent": "harp"}
    make_folder(tmp_path / "bench", lines)
    kinds = ["text", "capitals", "alt-caption", "absent"]
    options = QUICK | {"prompts": kinds}
    scores = evaluate_model(oracle(), tmp_path / "bench", tmp_path / "out", **options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["parts"] == {"sfx, known captions": 1, "sfx, new captions": 1}
    assert "sisdri/none/sfx, new captions/text" in scores
    # The model knows one wording only: for others it returns the residual, with a leak.
    assert scores["reworded/none/all/capitals"] < -10
    changes = [row for row in results["reworded"] if row["row"] == "model/none/alt-caption"]
    assert [row["id"] for row in changes] == ["a"]
    absent = {row["id"]: row for row in results["items"] if row["row"] == "model/none/absent"}
    assert absent.keys() == {"a", "c"}
    middle = np.mean([row["absent_level"] for row in absent.values()])
    assert scores["absent_level_median/none/all/absent"] == pytest.approx(middle)
    assert "sisdri" not in absent["a"]
    assert (tmp_path / "out" / "report.html").read_text().count("Another wording") == 1


def test_levels_say_how_much_of_the_target_a_prompt_lets_through(good):
    following = json.loads((good[2] / "out" / "results.json").read_text())["following"]
    rows = [row for row in following if row["row"] == "model/none/text"]
    assert {row["id"] for row in rows} == {"a", "b"}
    for row in rows:
        assert row["kept_right"] > row["kept_wrong"] + 10  # the wrong stem has a tenth of it
        assert row["kept_right"] == pytest.approx(row["level_right"], abs=1.0)


def test_the_level_of_a_stem():
    wave = np.ones(100, np.float32)
    assert scoring.level_db(wave, 10 * wave) == pytest.approx(-20)
    assert scoring.level_db(np.zeros(100, np.float32), wave) == scoring.FLOOR_DB


def test_the_median_the_worst_and_the_best_come_first():
    rows = [
        {"id": name, "clap": score} for name, score in zip("abcde", (3, 1, 5, 2, 4), strict=True)
    ]
    order = [(one.row["id"], one.place) for one in ranked(rows)]
    assert order == [("a", "median"), ("b", "worst"), ("c", "best"), ("d", ""), ("e", "")]
    assert {one.column for one in ranked(rows)} == {"clap"}
    rows[0] |= {"sisdri": 7.0}
    assert [(one.row["id"], one.column, one.place) for one in ranked(rows)] == [("a", "sisdri", "")]
    assert [one.row["id"] for one in ranked([{"id": "x"}, {"id": "y"}])] == ["x", "y"]
