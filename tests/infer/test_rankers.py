"""The rankers that a model's config names: which one ranks, how they are read, what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from sam_audio_jax import SAMAudio, SAMAudioProcessor, audio
from sam_audio_jax.convert import rankers
from sam_audio_jax.convert.clap import clap_table
from sam_audio_jax.convert.imagebind import load_imagebind
from sam_audio_jax.convert.judge import save_judge
from sam_audio_jax.convert.rankers import ModelRankers, open_rankers
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import rerank
from sam_audio_jax.infer.batch.run import Settings, run
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.clap import Clap
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.judge import Judge
from sam_audio_jax.scorers.judge_scorer import JudgeScorer
from sam_audio_jax.scorers.scorer import PromptView, SpanIoU
from tests import tiny
from tests.scorers.test_clap_scorer import roberta_tokenizer
from tests.scorers.tiny_imagebind import TINY, random_state

RATE = 8_000
JUDGE = {"kind": "judge", "checkpoint_or_model_id": "judge"}
SPANS = [("+", 0.2, 0.6)]
SHORT = LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=1.5)


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory):
    """The model's folder with a judge inside, which its config names as the text ranker."""
    path = tmp_path_factory.mktemp("judged") / "model"
    shutil.copytree(folder, path)
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    judge.std[...] = np.ones(4, np.float32)
    save_judge(path / "judge", judge, "byt5")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"text_ranker": JUDGE}))
    return path


class Fixed:
    """Gives every item these scores."""

    needs, axes = "text", ("fixed",)

    def __init__(self, *scores):
        self.scores = scores

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        assert all(view.text == "dog" for view in prompts)
        return {"fixed": np.array([self.scores] * len(prompts))}


@pytest.fixture
def ranked(model, monkeypatch):
    """The model with a text ranker that prefers the second of two candidates."""
    chooser = rerank.Rankers(ModelRankers(text=Fixed(0, 1)))
    monkeypatch.setattr(model.pipeline, "rankers", chooser)
    return model


def test_the_config_s_judge_is_read_for_the_first_item_and_ranks_it(judged, noise_of):
    model = SAMAudio.from_pretrained(judged)
    stored = model.pipeline.rankers.model.text
    assert "_scorer" not in vars(stored)
    wave = noise_of(0.5)
    stems = model.separate(wave, "dog", sample_rate=RATE, candidates=2)
    judge = stored.load()
    assert isinstance(judge, JudgeScorer)
    best = int(stems.scores.argmax())
    call = (np.stack([stems.target] * 2)[None], np.array([len(wave)]), RATE)
    again = judge.score(wave[None], *call, [PromptView(text="dog")])["overall"]
    np.testing.assert_allclose(stems.scores[best], again[0, 0], atol=1e-4)
    assert np.ptp(stems.scores) > 1e-4


def test_texts_are_ranked_in_calls_with_lists_batches_manifests_and_windows(
    ranked, noise_of, tmp_path, monkeypatch
):
    wave = noise_of(1.01)
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
    result = ranked.separate(processor(["dog"], [wave]), reranking_candidates=2)
    np.testing.assert_array_equal(result.scores, [[0, 1]])

    monkeypatch.setattr(ranked.pipeline.long_audio, "config", SHORT)
    names = ("spans", "text", "long")  # spans go first
    for name in names:
        audio.write_wav(
            tmp_path / f"{name}.wav", noise_of(1.8 if name == "long" else 1.0)[None], RATE
        )
    items = [{"id": name, "audio": f"{name}.wav", "text": "dog"} for name in names]
    items[0]["spans"] = SPANS
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    settings = Settings(checkpoint="x", options=SeparateOptions(candidates=2))
    entries, out = read_manifest(tmp_path / "items.jsonl"), tmp_path / "out"
    assert run(ranked, entries, out, settings) == {}
    records = {r["id"]: r for r in map(json.loads, (out / "done.jsonl").read_text().splitlines())}
    assert records["text"]["scores"] == records["long"]["scores"] == [0, 1]
    assert set(records["spans"]["scores"]) != {0, 1}
    # The other item of the group is done, so that a placeholder has its row: it is not ranked.
    (out / "text.target.wav").unlink()
    kept = [r for name, r in records.items() if name != "text"]
    (out / "done.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    assert run(ranked, entries, out, settings) == {}
    assert (out / "text.target.wav").exists()


def test_a_manifest_is_not_continued_with_another_ranker(judged, noise_of, tmp_path):
    folder = shutil.copytree(judged, tmp_path / "model")
    audio.write_wav(tmp_path / "a.wav", noise_of(0.5)[None], RATE)
    line = {"id": "a", "audio": "a.wav", "text": "dog"}
    (tmp_path / "items.jsonl").write_text(json.dumps(line))
    entries, out = read_manifest(tmp_path / "items.jsonl"), tmp_path / "out"
    settings = Settings(checkpoint="x", options=SeparateOptions(candidates=2, steps=1))
    assert run(SAMAudio.from_pretrained(folder), entries, out, settings) == {}
    saved = json.loads((out / "settings.json").read_text())
    other = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)), seed=1)
    other.std[...] = np.ones(4, np.float32)
    shutil.rmtree(folder / "judge")
    save_judge(folder / "judge", other, "byt5")
    model = SAMAudio.from_pretrained(folder)
    with pytest.raises(UserError, match=r"a run with another ranker of text .*; choose another"):
        run(model, entries, out, settings)
    assert json.loads((out / "settings.json").read_text()) == saved
    shutil.rmtree(folder / "judge")  # nobody knows which it was: what is done stays
    assert run(SAMAudio.from_pretrained(folder), entries, out, settings) == {}
    assert json.loads((out / "settings.json").read_text()) == saved
    del saved["networks"]  # as older runs
    (out / "settings.json").write_text(json.dumps(saved))
    assert run(model, entries, out, settings) == {}


def test_a_checkpoint_by_kind_goes_before_the_config_s(judged):
    opened = open_rankers({}, {"judge": judged / "judge", "clap": "x.pt", "imagebind": "y.pth"})
    assert isinstance(opened.text, Ensemble)
    weights = {name: weight for name, (_, weight) in opened.text.members.items()}
    assert weights == {"clap": 5.0, "judge": 1.0}
    assert opened.visual.needs == "video"
    assert open_rankers({}) == ModelRankers()


def test_the_release_s_ensemble_is_five_clap_and_one_judge(judged, tmp_path, monkeypatch):
    network = tiny.filled(lambda: Clap(tiny.CLAP, rngs=Rngs(0)))
    folder = tmp_path / "clap"
    folder.mkdir()
    stored = clap_table(tiny.CLAP).stored(network)
    numbers = {name: np.array(tensor) for name, tensor in stored.items()}
    save_file(numbers, folder / "clap.safetensors")
    roberta_tokenizer().pretrained.save_pretrained(folder)
    load = rankers.load_clap
    monkeypatch.setattr(rankers, "load_clap", lambda name, mesh: load(name, tiny.CLAP, mesh))
    clap, judge = rankers.read_clap(str(folder)), rankers.read_judge(str(judged / "judge"))
    monkeypatch.setattr(clap, "score", lambda *_: {"clap": np.float32([[0.5, 0.2]])})
    monkeypatch.setattr(judge, "score", lambda *_: {"overall": np.float32([[1.0, 2.0]])})
    read = []
    monkeypatch.setattr(rankers, "read_clap", lambda name, mesh: read.append(name) or clap)
    monkeypatch.setattr(rankers, "read_judge", lambda name, mesh: read.append(name) or judge)
    released = {
        "kind": "ensemble",
        "rankers": {"clap": [{"checkpoint": None, "kind": "clap"}, 5.0], "judge": [JUDGE, 1.0]},
    }
    opened = open_rankers({"text_ranker": released}, {"clap": folder}, folder=judged)
    assert not read
    chosen = rerank.Rankers(opened).choose(PromptView(text="dog"), "x")
    assert read == [str(folder), str(judged / "judge")]
    waves = np.zeros((1, 2, 900), "f4")
    scores = chosen.score(waves[:, 0], waves, np.array([900]), 800, [PromptView(text="dog")])
    np.testing.assert_allclose(scores["ensemble"], [[3.5, 3.0]])


def test_a_video_is_ranked_by_the_visual_ranker_unless_there_are_spans(tmp_path, monkeypatch):
    save_file(random_state(), tmp_path / "imagebind.safetensors")
    monkeypatch.setattr(
        rankers, "load_imagebind", lambda name, mesh: load_imagebind(name, TINY, mesh)
    )
    visual = {"kind": "imagebind", "checkpoint": str(tmp_path / "imagebind.safetensors")}
    activity = {"kind": "sound_activity", "metric": "recall"}
    model = open_rankers({"visual_ranker": visual, "text_ranker": activity})
    assert isinstance(model.text, SpanIoU)
    assert model.text.axes == ("span_recall",)
    chooser = rerank.Rankers(model)
    video = PromptView(text="dog", video=lambda times: iter([np.zeros((len(times), 8, 8, 3))]))
    with pytest.warns(UserWarning, match="non-commercial"):
        assert chooser.choose(video, "x") is model.visual
    spans = PromptView(text="dog", video=video.video, spans=(("+", 0.0, 1.0),))
    assert chooser.choose(spans, "x") is model.text  # as the config says
    assert chooser.choose(PromptView(text="dog"), "x", predicts_spans=True) is model.text
    usual = rerank.Rankers(open_rankers({"visual_ranker": visual})).choose(spans, "x")
    assert isinstance(usual, SpanIoU)
    assert usual.metric == "iou"
    with pytest.raises(UserError, match="names no text ranker: give '\\+' spans, or one as"):
        rerank.Rankers().choose(PromptView(text="dog"), "x")


@pytest.mark.parametrize(
    ("config", "checkpoints", "message"),
    [
        ({"text_ranker": {"kind": "clip"}}, {}, "text_ranker must be an object with a kind of"),
        ({"text_ranker": "judge"}, {}, "text_ranker must be an object with a kind of"),
        ({"text_ranker": JUDGE | {"x": 1}}, {}, r"unknown key text_ranker\.x, allowed are kind"),
        ({"text_ranker": {"kind": "ensemble"}}, {}, "text_ranker.rankers must name rankers"),
        (
            {"text_ranker": {"kind": "ensemble", "rankers": {"a": JUDGE}}},
            {},
            r"rankers\.a must be \[ranker, weight\]",
        ),
        ({"text_ranker": JUDGE}, {"clap": "c.pt"}, "rankers of this model have no clap"),
        ({}, {"aesthetics": "a.pt"}, "ranker 'aesthetics' is unknown; allowed: judge, clap"),
    ],
)
def test_wrong_rankers(config, checkpoints, message):
    with pytest.raises(UserError, match=message) as caught:
        open_rankers(config, checkpoints)
    assert "\n" not in str(caught.value)


def test_a_ranker_that_cannot_be_read_is_one_line_before_any_solve(model, noise_of, monkeypatch):
    opened = open_rankers({}, {"judge": "/nowhere/judge"})
    monkeypatch.setattr(model.pipeline, "rankers", rerank.Rankers(opened))
    monkeypatch.setattr(model.pipeline, "solve_group", lambda *_: pytest.fail("solved"))
    message = r"candidates of audio cannot be ranked: no model folder /nowhere/judge"
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            model.separate(noise_of(0.5), "dog", sample_rate=RATE, candidates=2)
    opened = open_rankers({"visual_ranker": {"kind": "imagebind", "checkpoint": None}})
    with pytest.raises(UserError, match=r"get https://.*imagebind_huge\.pth and name the file"):
        opened.visual.load()


def test_a_named_ranker_is_never_ignored_in_silence(ranked, noise_of, tmp_path, monkeypatch):
    for kind, name in (("judge", "/nonexistent/judge"), ("clap", "gone.pt")):
        with pytest.raises(UserError, match=f"no file or folder at {name}, which is named as"):
            rankers.check_named({kind: name})
    rankers.check_named({"judge": "facebook/sam-audio-judge", "clap": tmp_path})
    call = {"sample_rate": RATE, "candidates": 2, "steps": 1}
    monkeypatch.setattr(
        ranked.pipeline, "rankers", dataclasses.replace(ranked.pipeline.rankers, named=("judge",))
    )
    with pytest.warns(UserWarning, match="spans rank its candidates, not the named judge"):
        ranked.separate(noise_of(1.01), "dog", SPANS, **call)
    assert not ranked.separate(noise_of(1.01), "dog", **call).notes
