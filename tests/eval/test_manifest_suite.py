"""A manifest of recordings as a bench: what is measured, refused, and measured again."""

import json

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.eval.manifest_suite import manifest_suite, open_manifest
from sam_audio_jax.eval.scoring import Measures
from sam_audio_jax.process_rank import ProcessRank
from tests.eval.released_bench import OPTIONS, LevelScorer, make_networks, seeing


@pytest.fixture(scope="module")
def model():
    return seeing(make_networks())


def test_a_manifest_of_recordings_is_a_bench_without_references(model, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, 8_000)).astype(np.float32)
    audio.write_wav(tmp_path / "a.wav", wave, 8_000)
    lines = [
        {"id": "a", "audio": "a.wav", "text": "rain"},
        {"id": "b", "audio": "a.wav", "text": "rain", "spans": [["+", 0.2, 0.5]]},
        {"id": "c", "audio": "absent.wav", "text": "rain"},
        *({"id": name, "audio": "a.wav", "text": name} for name in ("d", "e")),
        {"id": "f & g", "audio": "a.wav", "text": "rain", "spans": [["+", 2, 3]]},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = manifest_suite(open_manifest(tmp_path / "m.jsonl"), model)
    used = {"clap": LevelScorer("text", ("clap",))}
    evaluate_model(model, suite, tmp_path / "out", measures=Measures(used), **OPTIONS)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = {item["id"]: item["row"] for item in results["items"] if item["clap"] > 0}
    kinds = {name: row.removeprefix("model/none/") for name, row in rows.items()}
    assert kinds == {"a": "text", "b": "text+span", "d": "text", "e": "text"}
    reasons = {one["id"]: one["reason"] for one in results["missing"]}
    assert list(reasons) == ["c", "f & g"]
    assert reasons["f & g"] == "f & g has no span that begins before its end at 1 s"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<li>text+span, f &amp; g: f &amp; g has no span that begins before" in page
    (tmp_path / "m.jsonl").write_text(json.dumps(lines[2]))
    suite = manifest_suite(open_manifest(tmp_path / "m.jsonl"), model)
    with pytest.raises(UserError, match=r"nothing of m\.jsonl was separated: c: no sound file"):
        evaluate_model(model, suite, tmp_path / "o", **OPTIONS)


def test_what_failed_is_tried_again_by_the_call_that_goes_on(model, tmp_path, monkeypatch):
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, 8_000)).astype(np.float32)
    audio.write_wav(tmp_path / "a.wav", wave, 8_000)
    lines = [{"id": name, "audio": f"{name}.wav", "text": "rain"} for name in ("b", "a")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    used = {"clap": LevelScorer("text", ("clap",))}

    def run():
        suite = manifest_suite(open_manifest(tmp_path / "m.jsonl"), model)
        options = OPTIONS | {"batch": 1}
        evaluate_model(model, suite, tmp_path / "out", measures=Measures(used), **options)
        return json.loads((tmp_path / "out" / "results.json").read_text())

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "separate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run()  # b.wav is missing; the separation of a.wav is interrupted
    assert len(list((tmp_path / "out.partial").glob("separations-*.npz"))) == 1
    audio.write_wav(tmp_path / "b.wav", 0.5 * wave, 8_000)
    results = run()
    assert not results["missing"]
    assert {item["id"] for item in results["items"] if item["clap"] > 0} == {"a", "b"}


class LongScorer(LevelScorer):
    """Refuses what is too short, as networks do."""

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        if min(lengths) < sample_rate // 2:
            raise UserError("too short for this network")
        return super().score(mixtures, candidates, lengths, sample_rate, prompts)


def test_an_item_that_a_scorer_refuses_is_listed_and_stops_no_other(model, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, 8_000)).astype(np.float32)
    for name, samples in {"a": 8_000, "b": 2_000, "c": 8_000}.items():
        audio.write_wav(tmp_path / f"{name}.wav", wave[:, :samples], 8_000)
    spans = [["+", 0.1, 0.2], ["+", 0.5, 9.0], ["+", 3.0, 4.0]]
    lines = [{"id": name, "audio": f"{name}.wav", "text": "rain"} for name in "abc"]
    lines = [line | {"spans": spans} for line in lines]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = manifest_suite(open_manifest(tmp_path / "m.jsonl"), model)
    measures = Measures({"clap": LongScorer("text", ("clap",))})
    evaluate_model(model, suite, tmp_path / "out", measures=measures, **OPTIONS)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [item["id"] for item in results["items"] if item["clap"] > 0] == ["a", "c"]
    (failed,) = results["missing"]
    assert (failed["id"], failed["reason"]) == ("b", "too short for this network")
    sounding = [one["sounding"] for one in results["described"]]
    assert sounding == pytest.approx([0.6, 0.6])  # spans end with the recording


@pytest.mark.parametrize("mended", [True, False])
def test_an_evaluation_goes_on_with_the_recordings_that_it_measured(
    model, tmp_path, monkeypatch, mended
):
    """One that failed may be mended; another one that was measured makes another evaluation."""
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, 8_000)).astype(np.float32)
    for name in "ac":
        audio.write_wav(tmp_path / f"{name}.wav", wave, 8_000)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    lines = [{"id": name, "audio": f"{name}.wav", "text": "rain"} for name in "abc"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    separate, seen, stop_at = model.separate, [], [1]

    def counted(*arguments, **options):
        if len(seen) == stop_at[0]:
            raise KeyboardInterrupt
        seen.append(arguments)
        return separate(*arguments, **options)

    def run(rank=None):
        suite = manifest_suite(open_manifest(tmp_path / "m.jsonl"), model)
        options = OPTIONS | {"batch": 1, "rank": rank}
        measures = Measures({"clap": LevelScorer("text", ("clap",))})
        evaluate_model(model, suite, tmp_path / "out", measures=measures, **options)
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        return {item["id"]: item["clap"] for item in results["items"]}

    monkeypatch.setattr(model, "separate", counted)
    with pytest.raises(KeyboardInterrupt):
        run()  # a is measured, b has failed, c is interrupted
    for name in "bc" if mended else "a":
        audio.write_wav(tmp_path / f"{name}.wav", 3 * wave[:, :6_000], 8_000)
    stop_at[0] = None
    if not mended:
        with pytest.raises(UserError, match="of another model or with other settings or rec"):
            run(ProcessRank())
    scores = run()
    assert len(seen) == 3
    monkeypatch.undo()
    assert scores == run()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spans": [["-", 0, 1]]}, "has a '-' span: an evaluation is prompted by"),
        ({"text": ["rain", "wind"]}, "has several texts: an evaluation is prompted by one text"),
        ({"like": "b.wav"}, "has an example (like): an evaluation is prompted by one text"),
        ({"text": None}, "has no prompt: give it a text"),
    ],
)
def test_a_manifest_with_other_prompts_is_refused_in_one_line(fields, message, tmp_path):
    line = {"id": "a", "audio": "a.wav", "text": "rain"} | fields
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    with pytest.raises(UserError) as error:
        open_manifest(tmp_path / "m.jsonl")
    assert str(error.value).startswith("m.jsonl: item a ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
