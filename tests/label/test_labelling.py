"""A labelling run: one result for every line, whatever is broken, killed or shared."""

import copy
import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tqdm

from sam_audio_jax import audio
from sam_audio_jax.cli import label as command
from sam_audio_jax.cli import main
from sam_audio_jax.data.config import LabelConfig
from sam_audio_jax.data.labels import LabelCache, all_entries, read_labels_index, shard_path
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import PART, read_jsonl, write_json, writing_to
from sam_audio_jax.label.label_inputs import read_inputs
from sam_audio_jax.label.labelling import _Run, check_label_folder, make_plan
from sam_audio_jax.label.members import SolvedMember
from sam_audio_jax.process_rank import ProcessRank
from tests.children import ROOT, environment
from tests.label.conftest import SETTINGS

LABELLED = ["item0", "item1", "item2", "item3", "item4"]
FAILED = {
    "broken": "cannot be decoded",
    "line 5": "malformed line",
    "item5": "longer than 2 s",
    "unnamed": "no caption",
}


def contents(out: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_every_line_has_one_result(whole):
    entries = list(all_entries(whole, 3))
    assert [entry["line"] for entry in entries] == list(range(1, 10))
    assert [entry["id"] for entry in entries if "scores" in entry] == LABELLED
    assert {entry["id"]: entry["reason"] for entry in entries if "reason" in entry} == FAILED
    assert read_jsonl(whole / "scores.jsonl") == entries
    for entry in entries:
        if "scores" in entry:
            assert tuple(entry["scores"]) == SETTINGS.scores
            assert np.isfinite(list(entry["scores"].values())).all()


def test_the_report_says_what_filters_drop_and_plays_examples(whole):
    page = (whole / "report.html").read_text()
    for name in SETTINGS.scores:
        assert f"<td>{name}<small>" in page  # what it drops
        assert f'aria-label="{name}"' in page  # its histogram
    for reason in FAILED.values():
        assert f"<td>{reason}</td><td>1</td>" in page
    assert page.count("<audio") % 3 == 0 < page.count("<audio")


def test_a_label_is_read_with_its_stems_prompt_and_scores(whole, folder):
    cache = LabelCache(LabelConfig(folder=str(whole)), seed=0)
    labels = [cache[number] for number in range(len(cache))]
    assert [one.id for one in labels] == LABELLED
    hop, rate = cache.index["hop"], cache.index["sample_rate"]
    for one in labels:
        assert one.mixture.shape == one.target.shape == one.residual.shape
        assert len(one.mixture) == -(-rate // 2 // hop)
        assert len(one.target_active) == len(one.mixture)
        assert one.prompt["text"] in one.target_texts
        assert one.residual_texts == ()
        assert one.checkpoint == str(folder)
    # Generated stems are none that add up to the recording, and nothing makes them so.
    sums = [np.abs(one.mixture - one.target - one.residual).max() for one in labels]
    assert min(sums) > 0.1


def test_processes_that_share_the_work_leave_the_same_files(whole, run, tmp_path):
    out = tmp_path / "out"
    assert not run(out, ProcessRank(1, 2))
    assert not (out / "labels.json").exists()
    with pytest.raises(UserError, match="no finished pseudo-labels"):
        read_labels_index(out)
    assert run(out, ProcessRank(0, 2))
    assert contents(out) == contents(whole)


def test_a_run_beside_another_one_is_refused(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (
        writing_to(out, writer=0, writers=2),
        pytest.raises(UserError, match="another process is writing"),
    ):
        run(out)


def test_another_run_into_the_folder_is_refused(whole, run, labeller, recordings, monkeypatch):
    monkeypatch.setattr(labeller, "checkpoint", "moved")
    assert run(whole)  # the weights count, not the name
    with monkeypatch.context() as patch:
        patch.setattr(labeller.pipeline, "level_db", -33.0)
        plan = make_plan(labeller, read_inputs(recordings))
        with pytest.raises(UserError, match=r"with another separation\.level_db: .*, not -33\.0"):
            check_label_folder(whole, plan)
    monkeypatch.setattr("sam_audio_jax.label.labelling.FORMAT", 0)
    with pytest.raises(UserError, match="has format 1"):
        run(whole)


def test_labels_from_before_phrases_go_on_with_captions_as_written(tmp_path):
    plan = {"format": 1, "settings": {"prompts": "text"}}
    write_json(tmp_path / "plan.json", plan)
    now = {"format": 1, "settings": {"prompts": "text", "phrases": False}}
    check_label_folder(tmp_path, now)
    now["settings"]["phrases"] = True
    with pytest.raises(UserError, match=r"another settings\.phrases: False, not True"):
        check_label_folder(tmp_path, now)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--filters", "judge"], "--filters judge needs --scorers judge=PATH, of trained weights"),
        (["--scorers", "clap=random"], "clap=random: a filter needs trained weights"),
        (["--vocabulary", "{}"], "--vocabulary needs --scorers clap=FILE"),
        (["--prompts", "span", "--filters", "absent"], "--filters absent tests texts"),
    ],
)
def test_what_a_filter_cannot_do_without_is_refused(
    options, reason, recordings, folder, tmp_path, capsys
):
    (tmp_path / "phrases").write_text("dog\n")
    options = [one.format(tmp_path / "phrases") for one in options]
    arguments = ["label", str(recordings), "--checkpoint", str(folder)]
    assert main([*arguments, "--out", str(tmp_path / "out"), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_with_a_random_codec_labels_nothing(monkeypatch):
    fields = {"codec_checkpoint": "random", "text_checkpoint": "", "train_text": True}
    run = types.SimpleNamespace(fields=lambda needed: fields)
    monkeypatch.setattr(command, "find_checkpoint", lambda name: run)
    with pytest.raises(UserError, match="was trained with codec_checkpoint=random"):
        command.check_trained("runs/toy")
    fields["codec_checkpoint"] = "tiny"
    command.check_trained("runs/toy")


@pytest.mark.processes
def test_a_killed_run_goes_on_and_leaves_what_an_undisturbed_one_does(
    whole, run, recordings, folder, tmp_path
):
    out = tmp_path / "out"
    options = ["--filters", *SETTINGS.scores, "--longest-s", "2", "--per-shard", "3"]
    arguments = ["label", str(recordings), "--checkpoint", str(folder), "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, "-m", "sam_audio_jax.cli", *arguments, *options],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
    )
    while child.poll() is None and not shard_path(out, 0).exists():
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()[-2_000:]
    before = shard_path(out, 0).stat().st_mtime_ns
    assert not (out / "labels.json").exists()
    assert run(out)
    assert shard_path(out, 0).stat().st_mtime_ns == before  # it was not made again
    assert contents(out) == contents(whole)
    assert not [path for path in out.iterdir() if PART in path.name]


def test_a_damaged_shard_is_named(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    damaged = shard_path(out, 1)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"00001.arrayrecord is damaged"):
        list(all_entries(out, 3))


def write_lines(path: pathlib.Path, *lines: dict) -> pathlib.Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_of_one_recording_in_two_spellings_are_not_remixed(labeller, recordings, tmp_path):
    """Its own residual and the caption of its other line would flatter, or blame, the label."""
    source = recordings.parent
    (source / "sub").mkdir(exist_ok=True)
    names = (source / "0.wav", source / "sub" / ".." / "0.wav")
    lines = [{"path": str(n), "caption": c} for n, c in zip(names, ("rain", "violin"), strict=True)]
    run = _Run(labeller, read_inputs(write_lines(tmp_path / "two.jsonl", *lines)))
    assert not any(run._absent_text(one) for one in run.inputs)
    without = dataclasses.replace(labeller.settings, scores=("remix",))
    alone = copy.copy(labeller)
    alone.settings = without
    run = _Run(alone, read_inputs(tmp_path / "two.jsonl"))
    results = run.shard(0, tqdm.tqdm(disable=True))
    assert all("no other recording to remix with" in one.text for one in results)


def test_the_channel_of_a_line_is_what_is_labelled(labeller, tmp_path):
    waves = [0.1 * np.random.default_rng(number).standard_normal(2_000) for number in range(2)]
    audio.write_wav(tmp_path / "both.wav", np.stack(waves), 8_000)
    audio.write_wav(tmp_path / "second.wav", waves[1][None], 8_000)
    lines = [
        {"id": "both", "path": "both.wav", "caption": "rain", "channel": 2},
        {"id": "second", "path": "second.wav", "caption": "rain"},
        {"id": "none", "path": "both.wav", "caption": "rain", "channel": 3},
    ]
    inputs = read_inputs(write_lines(tmp_path / "lines.jsonl", *lines)).inputs
    both, second = map(labeller.member, inputs[:2])
    np.testing.assert_array_equal(both.item.wave, second.item.wave)
    with pytest.raises(UserError, match=r"both\.wav has no channel 3, it has 2"):
        labeller.member(inputs[2])


def test_a_video_is_known_to_scorers_where_the_model_is_not_prompted_by_it(labeller, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal((1, 800))
    audio.write_wav(tmp_path / "a.wav", wave, 8_000)
    lines = [{"path": "a.wav", "caption": "rain", "video": "a.mp4"}, {"path": "a.wav", "id": "b"}]
    (tmp_path / "a.mp4").touch()
    seen, unseen = read_inputs(write_lines(tmp_path / "lines.jsonl", *lines)).inputs
    silence = np.zeros(800, np.float32)
    views = [SolvedMember(labeller.member(one), silence, silence).prompts for one in (seen, unseen)]
    assert [view.video is not None for view in views] == [True, False]
