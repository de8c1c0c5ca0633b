"""The whole evaluation with a model that knows the answers: what it must score and leave behind."""

import json

import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.bench import at_rate, choose, evaluate_model
from sam_audio_jax.eval.mixtures import load_bench
from tests.eval.listing import RATE, Oracle


@pytest.fixture(scope="module")
def codec():
    config = CodecConfig(
        sample_rate=RATE,
        encoder_dim=4,
        encoder_rates=(4, 10),
        latent_dim=8,
        decoder_dim=8,
        decoder_rates=(10, 4),
        codebook_dim=4,
        watermark_rates=(),
    )
    return Codec(config, rngs=nnx.Rngs(0))


@pytest.fixture
def oracle(bench_folder, codec):
    bench = load_bench(bench_folder)
    sounds = [at_rate(bench, item, RATE) for item in bench.mixtures]
    return lambda **kind: Oracle(codec, sounds, **kind)


def test_a_good_model_scores_well_and_leaves_a_report(oracle, bench_folder, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "group": "train", "loss": 1 / s}) + "\n" for s in (1, 2, 3))
    )
    model = oracle()
    scores = evaluate_model(
        model,
        bench_folder,
        out,
        batch=4,
        steps=2,
        seed=7,
        listen=1,
        workdir=tmp_path,
        progress=False,
    )
    assert {call[0] for call in model.calls} == {4}  # the last group is filled up
    assert all(call[2:] == (7, {"steps": 2}) for call in model.calls)
    assert scores["sisdri/none/all/text"] > 15
    assert scores["sisdri/wiener/sfx/span"] > 15
    assert scores["logmel/wiener/all/text"] < scores["logmel/mixture/all"]
    assert scores["sisdri/mixture/all"] == 0
    assert scores["sisdri/oracle/all"] > 15
    assert scores["following/wiener/all/text"] == 1
    assert "following/wiener/speech/span" not in scores  # its two sounds are always on
    results = json.loads((out / "results.json").read_text())
    assert results["mixtures"] == {"sfx": 2, "speech": 1}
    assert results["not_told_apart_by_spans"] == ["b"]
    assert results["settings"]["seed"] == 7
    rows = {row["row"] for row in results["items"]}
    assert {"mixture", "codec", "codec+wiener", "oracle", "model/wiener/text+span"} <= rows
    page = (out / "report.html").read_text()
    assert page.count("<audio") == 2 * 7
    assert "Training loss" in page
    assert "http" not in page.replace("http-equiv", "")  # needs no other file
    wavs = {path.relative_to(out / "audio").as_posix() for path in out.rglob("*.wav")}
    assert "b/target.wav" in wavs
    assert {path.name for path in tmp_path.iterdir()} == {"bench", "out", "metrics.jsonl"}


def test_a_deaf_model_is_found_out(oracle, bench_folder, tmp_path):
    scores = evaluate_model(
        oracle(deaf=True),
        bench_folder,
        tmp_path / "out",
        prompts=["text"],
        listen=0,
        with_baselines=False,
        progress=False,
    )
    assert scores["sisdri/none/all/text"] > 15
    assert scores["following/none/all/text"] == 0  # the same answer is no better than itself
    assert not any(name.startswith("sisdri/oracle") for name in scores)


def test_outputs_that_are_not_finite_are_counted_not_averaged(oracle, bench_folder, tmp_path):
    scores = evaluate_model(
        oracle(broken=True), bench_folder, tmp_path / "out", prompts=["text"], progress=False
    )
    assert "sisdri/none/all/text" not in scores
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["not_finite"] == 5
    assert results["items"][-1]["sisdr"] is None


def test_an_older_result_is_replaced_whole_and_a_failure_leaves_it(oracle, bench_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(UserError, match="prompt 'image'"):
        evaluate_model(oracle(), bench_folder, out, prompts=["image"], progress=False)
    assert (out / "old").exists()
    quick = {"prompts": ["text"], "listen": 0, "with_baselines": False, "progress": False}
    first = evaluate_model(oracle(), bench_folder, out, **quick)
    assert {path.name for path in out.iterdir()} == {"report.html", "results.json"}
    before = (out / "results.json").read_bytes()
    assert first == evaluate_model(oracle(), bench_folder, out, **quick)
    assert (out / "results.json").read_bytes() == before


def test_a_limit_takes_turns_between_the_settings(bench_folder):
    mixtures = load_bench(bench_folder).mixtures
    assert [item.id for item in choose(mixtures, 2)] == ["a", "b"]
    assert [item.id for item in choose(mixtures, 3)] == ["a", "b", "c"]
    assert len(choose(mixtures, None)) == 3
    with pytest.raises(UserError, match="limit 0 must be at least 1"):
        choose(mixtures, 0)


def test_baselines_know_the_stems(oracle, bench_folder, tmp_path):
    evaluate_model(
        oracle(), bench_folder, tmp_path / "out", prompts=["text"], listen=0, progress=False
    )
    items = json.loads((tmp_path / "out" / "results.json").read_text())["items"]
    mixture = {row["id"]: row for row in items if row["row"] == "mixture"}
    best = {row["id"]: row for row in items if row["row"] == "oracle"}
    assert all(row["sisdri"] == 0 for row in mixture.values())
    assert all(best[name]["sisdr"] > row["sisdr"] + 8 for name, row in mixture.items())
    assert np.isfinite([row["logmel_residual"] for row in items]).all()
