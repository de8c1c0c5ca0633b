"""The closed loop of pseudo-labels: halves that share nothing, arms that differ in labels alone."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest

from sam_audio_jax import audio, config
from sam_audio_jax.cli import main as sam_audio
from sam_audio_jax.data.source import load_manifest, load_songs
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_jsonl, read_object, write_json, write_jsonl
from sam_audio_jax.label.filter_quality import auc, auc_interval
from tools import experiment, label_loop, label_loop_page

TOY = str(pathlib.Path(__file__).parent / "toy_loop.py")


def loop(out: pathlib.Path, *more: str) -> label_loop.Loop:
    experiment, _ = label_loop.read_options(["--config", TOY, "--out", str(out), *more])
    return experiment


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """A folder with eight effects of four sources and two songs of two stems."""
    folder = tmp_path / "source"
    audio.write_wav(folder / "0.wav", np.zeros((1, 800), np.float32), 8_000)
    lines = []
    for number in range(8):
        name = {"id": f"sfx{number}", "path": "0.wav", "caption": f"thing {number}"}
        lines.append(name | {"category": "sfx", "source_id": f"source{number // 2}"})
    for number in range(4):
        name = {"id": f"stem{number}", "path": "0.wav", "caption": "piano playing"}
        # Stems of one song may be of several sources.
        lines.append(name | {"category": "music", "source_id": f"stem source{number}"})
    write_jsonl(folder / "manifest.jsonl", [line | {"duration": 0.1} for line in lines])
    songs = [
        {"song": f"song{n}", "stems": [{"id": f"stem{2 * n}"}, {"id": f"stem{2 * n + 1}"}]}
        for n in range(2)
    ]
    write_jsonl(folder / "songs.jsonl", songs)
    return folder


def test_the_halves_share_no_source_and_cut_no_song(source, tmp_path):
    experiment = loop(tmp_path / "out", "--source", str(source))
    experiment.claim()
    label_loop.divide(experiment)
    halves = [experiment.out / name / "manifest.jsonl" for name in ("first", "second")]
    first, second = (load_manifest(half) for half in halves)
    assert sorted(one.id for one in first + second) == sorted(
        one.id for one in load_manifest(source / "manifest.jsonl")
    )
    assert not {one.source_id for one in first} & {one.source_id for one in second}
    for half, recordings in zip(halves, (first, second), strict=True):
        stems = {stem for song in load_songs([str(half)], "train") for stem in song.stems}
        assert stems == {one.id for one in recordings if one.category == "music"}


def test_takes_of_a_source_stay_together_whatever_their_ids_and_songs(tmp_path):
    """Ids are of one folder alone, and one piece may be cut into several songs."""
    out = ["--out", str(tmp_path / "out")]
    for name in "ab":
        lines = []
        for number in range(6):
            audio.write_wav(tmp_path / name / f"{number}.wav", np.zeros((1, 800), np.float32), 8000)
            line = {"id": str(number), "path": f"{number}.wav", "caption": "piano playing"}
            line |= {"category": "music", "source_id": f"{name}{number // 2}", "duration": 0.1}
            np.save(tmp_path / name / f"{number}.npy", np.zeros((2, 2), np.float32))
            lines.append(line | {"video_features": f"{number}.npy", "song": "x", "stem": "piano"})
        write_jsonl(tmp_path / name / "manifest.jsonl", lines)
        songs = [[0, 2], [1, 3], [4, 5]]  # the first two are cut from two sources each
        lines = [
            {"song": str(n), "stems": [{"id": str(i)} for i in s]} for n, s in enumerate(songs)
        ]
        write_jsonl(
            tmp_path / name / "songs.jsonl", [lines[0] | {"kind": "conversation"}, *lines[1:]]
        )
        out += ["--source", str(tmp_path / name)]
    experiment = loop(tmp_path / "out", *out[2:])
    experiment.claim()
    label_loop.divide(experiment)
    halves = [experiment.out / name / "manifest.jsonl" for name in ("first", "second")]
    first, second = (load_manifest(half) for half in halves)  # ids are unique, files are there
    assert len(first) + len(second) == 12
    assert not {one.source_id for one in first} & {one.source_id for one in second}
    for half, recordings in zip(halves, (first, second), strict=True):
        assert all(pathlib.Path(one.video_features).is_absolute() for one in recordings)
        found = load_songs([str(half)], "train")
        assert {stem for song in found for stem in song.stems} == {one.id for one in recordings}
        assert {song.kind for song in found if song.name == "0"} <= {"conversation"}


def test_a_folder_of_another_experiment_is_refused(tmp_path):
    loop(tmp_path / "out").claim()
    loop(tmp_path / "out").claim()
    with pytest.raises(UserError, match="is of another experiment: seeds differ"):
        loop(tmp_path / "out", "--seeds", "2").claim()


def test_arms_differ_in_their_labels_alone(tmp_path):
    experiment = loop(tmp_path, "--filters", "remix", "silence", "--label-share", "0.25")
    cache = ["--data.cache", "latents"]
    arms = {
        arm: config.from_cli([TOY, *cache, *label_loop.arm_flags(experiment, arm, passing=7)])
        for arm in label_loop.ARMS
    }
    labels = {arm: cfg.data.labels for arm, cfg in arms.items()}
    assert labels["half"].folder == ""
    assert {arm for arm in arms if labels[arm].folder.endswith("labels")} == {
        *("all", "filtered", "random")
    }
    assert labels["filtered"].thresholds == {"silence": 0.95, "remix": 5.0}
    assert labels["random"] == dataclasses.replace(labels["all"], most=7)
    assert labels["true"].thresholds == labels["all"].thresholds == {}
    for arm, cfg in arms.items():
        plain = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, labels=labels["half"]))
        assert plain == arms["half"], arm


def test_auc_is_the_probability_of_the_right_order():
    good = np.array([False, False, True, True])
    assert auc(np.array([1.0, 2.0, 3.0, 4.0]), good) == 1.0
    assert auc(np.array([4.0, 3.0, 2.0, 1.0]), good) == 0.0
    assert auc(np.array([1.0, 3.0, 2.0, 4.0]), good) == 0.75
    assert auc(np.zeros(4), good) == 0.5
    assert math.isnan(auc(np.zeros(4), np.ones(4, bool)))
    assert auc_interval([1.0, 2.0], [True, True]) is None
    rng = np.random.default_rng(0)
    kinds = rng.random(400) < 0.5
    interval = auc_interval((kinds + rng.normal(size=400)).tolist(), kinds.tolist(), resamples=200)
    expected = 0.76  # of two normal distributions, a deviation apart
    assert interval.low < expected < interval.high
    assert interval.high - interval.low < 0.12


def test_the_page_compares_the_arms_by_pairs_of_mixtures(tmp_path):
    rng = np.random.default_rng(0)
    hard = rng.normal(size=20) * 5  # mixtures differ far more than arms do
    gains = {"half": 0.0, "all": -1.0, "filtered": 1.0, "random": 0.0, "true": 2.0}
    for name in ["start", *(f"{arm}-{seed}" for arm in gains for seed in range(2))]:
        gain = gains.get(name.split("-")[0], -3.0)
        items = [
            {"id": str(n), "row": f"model/{refine}/{prompt}", "sisdri": float(value + gain)}
            for n, value in enumerate(hard)
            for refine in ("wiener", "none")
            for prompt in label_loop_page.PROMPTS
        ]
        write_json(tmp_path / "eval" / name / "results.json", {"items": items})
    truth = rng.normal(size=60) * 4
    mixed = rng.normal(size=60) * 20  # what the mixtures have is no merit of a label
    entries = [
        {
            "id": str(n),
            "scores": {
                "remix": float(value + mixture + rng.normal()),
                "silence": 0.5,
                "true_sisdr": float(value + mixture),
                "true_sisdri": float(value),
            },
        }
        for n, (value, mixture) in enumerate(zip(truth, mixed, strict=True))
    ]
    write_jsonl(tmp_path / "labels" / "scores.jsonl", [*entries, {"id": "x", "reason": "y"}])
    options = {"filters": ("remix",)}
    results = label_loop_page.write(tmp_path, options, label_loop.ARMS, 2)
    arms = results["arms"]["sisdri"]["model/wiener/text"]
    for arm, gain in gains.items():
        change = arms[arm]["difference"]
        assert change["mean"] == pytest.approx(gain)
        assert change["high"] - change["low"] < 1e-6  # the mixtures cancel
        assert arms[arm]["mean"]["high"] - arms[arm]["mean"]["low"] > 1.0
    judged = results["arms"]["judge_overall"]["model/wiener/text"]
    assert judged["half"]["mean"] is None  # nobody measured it
    filters = results["filters"]
    assert (
        filters["remix"]["auc"]["good"]["mean"] > 0.95 > filters["remix"]["auc"]["better"]["mean"]
    )
    assert filters["silence"]["auc"]["good"]["mean"] == 0.5
    assert results["kinds"]["harmless"] == sum(truth > -3)
    assert results["kept"] == sum(one["scores"]["remix"] > 5 for one in entries)
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in label_loop_page.NAMES.values())


def test_intervals_of_an_arm_are_of_seeds_and_mixtures():
    rng = np.random.default_rng(0)
    mixtures, seeds = rng.normal(size=(1, 50)), np.array([[-1.0], [0.0], [1.0]])
    alike = label_loop_page.crossed_interval(np.repeat(mixtures, 3, axis=0))
    differing = label_loop_page.crossed_interval(mixtures + seeds)
    assert alike.mean == pytest.approx(differing.mean)
    assert differing.high - differing.low > 1.5 * (alike.high - alike.low)
    assert label_loop_page.crossed_interval(np.full((2, 3), np.nan)) is None


@pytest.mark.long
def test_the_whole_loop_runs_from_one_command(tmp_path, monkeypatch):
    """A few steps of each training: the report has all arms, and a second call does nothing."""
    calls = []

    def run(arguments):
        calls.append(arguments[0])
        assert sam_audio(list(arguments)) == 0

    monkeypatch.setattr(experiment, "run", run)
    # Any label passes, whatever a model of two steps makes of a sound.
    usual = label_loop.LABEL_SCORES["silence"]
    scores = label_loop.LABEL_SCORES | {"silence": dataclasses.replace(usual, threshold=2.0)}
    monkeypatch.setattr(label_loop, "LABEL_SCORES", scores)
    options = ["--first-steps", "2", "--further-steps", "2", "--cached", "64", "--labelled", "6"]
    options += ["--seeds", "1", "--limit", "2", "--filters", "silence"]
    out = tmp_path / "out"
    arguments = ["--config", TOY, "--out", str(out), *options]
    assert label_loop.main(arguments) == 0
    assert calls.count("train") == 6
    results = read_object(out / "results.json")
    assert set(results["arms"]["sisdri"]["model/wiener/text"]) == set(label_loop.ARMS)
    assert len(read_jsonl(out / "labels" / "scores.jsonl")) == 6
    calls.clear()
    assert label_loop.main(arguments) == 0
    assert calls == []
