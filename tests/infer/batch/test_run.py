"""A batch run continues where it was stopped, to the same end; bad items stop no others."""

import json
import os
import shutil

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.batch.ledger import count_done
from sam_audio_jax.infer.batch.run import Settings, check_run_folder, run
from sam_audio_jax.infer.batch.stamps import find_stamps, has_changed
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.infer.options import SeparateOptions
from tests.audio.recordings import sound, with_tracks
from tests.infer.batch.conftest import RATE, SETTINGS, ids, stems, write_recording
from tests.video.clips import greys
from tests.video.clips import write as write_video


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    paired, items, whole, tmp_path, monkeypatch
):
    entries, out, write, written = read_manifest(items), tmp_path / "out", audio.write_wav, []

    def interrupted(path, *rest):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "write_wav", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(paired, entries, out, SETTINGS)
    with (out / "done.jsonl").open("a") as file:
        file.write('{"id": "item4", "fra')  # what a kill leaves of a line
    (out / ".item4.12345678.part.wav").write_text("x")
    times = {name: (out / name).stat().st_mtime_ns for name in stems(out)}
    assert run(paired, entries, out, SETTINGS) == {}
    assert stems(out) == stems(whole)
    for name in ("item1.target.wav", "item2.residual.wav"):  # finished items are left alone
        assert (out / name).stat().st_mtime_ns == times[name]
    assert not list(out.glob(".*"))
    assert ids(out / "done.jsonl") == [entry.id for entry in entries]


def test_a_bad_item_stops_no_other(paired, items, whole, tmp_path):
    out = tmp_path / "out"
    audio.write_wav(items.parent / "1.wav", np.zeros((1, 4_800)), RATE)
    (items.parent / "6.wav").write_bytes(b"no sound")
    failed = run(paired, read_manifest(items), out, SETTINGS)
    assert list(failed) == ["item1", "item6"]
    assert "silent" in failed["item1"]
    assert "\n" not in failed["item6"]
    listed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in listed} == failed
    assert len(stems(out)) == 14
    write_recording(items.parent / "1.wav", 0.6, 1)
    write_recording(items.parent / "6.wav", 1.01, 6)
    assert run(paired, read_manifest(items), out, SETTINGS) == {}
    assert stems(out) == stems(whole)
    assert not (out / "failed.jsonl").exists()


def test_lines_may_name_videos(paired, items, tmp_path):
    write_video(items.parent / "0.mp4", greys(11))
    (items.parent / "mask.json").write_text(json.dumps([[2, 2, 20, 20]] * 11))
    (items.parent / "short.json").write_text(json.dumps([[2, 2, 20, 20]] * 3))
    lines = [json.loads(line) for line in items.read_text().splitlines()][::3]
    lines[0] |= {"video": "0.mp4", "mask": "mask.json"}
    lines[1] |= {"video": "0.mp4", "mask": "short.json"}
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, entries = tmp_path / "out", read_manifest(items)
    failed = run(paired, entries, out, SETTINGS)
    assert list(failed) == ["item3"]
    assert "has 3 frames, the video has more" in failed["item3"]
    assert (out / "item0.target.mp4").is_file()
    assert sorted({name.split(".")[0] for name in stems(out)}) == ["item0", "item6"]
    alone = paired.separate(
        items.parent / "0.wav",
        "dog",
        video=items.parent / "0.mp4",
        mask=items.parent / "mask.json",
        seed=SETTINGS.options.seed,
    )
    target = audio.load(out / "item0.target.wav").samples[0]
    np.testing.assert_allclose(target, alone.target, atol=2e-5)
    (out / "item0.target.mp4").unlink()  # what is missing is written again, with the same bytes
    before = stems(out)
    assert list(run(paired, entries, out, SETTINGS)) == ["item3"]
    assert (out / "item0.target.mp4").is_file()
    assert stems(out) == before


def test_candidates_of_a_manifest(paired, items, tmp_path):
    settings = Settings(checkpoint="x", options=SeparateOptions(candidates=2))
    failed = run(paired, read_manifest(items)[1:3], tmp_path / "out", settings)
    assert list(failed) == ["item2"]
    assert "candidates of item2 cannot be ranked: this model names no text" in failed["item2"]
    (record,) = map(json.loads, (tmp_path / "out" / "done.jsonl").read_text().splitlines())
    assert len(record["scores"]) == 2
    assert record["spans"] == [["+", 0.1, 0.5]]


def test_unusual_recordings_are_decoded_and_noted(paired, items, tmp_path):
    """A pipe is refused at once; a wrong header and a choice of tracks change what is separated."""
    folder, out = items.parent, tmp_path / "out"
    (folder / "1.wav").unlink()
    os.mkfifo(folder / "1.wav")
    (folder / "2.wav").write_bytes(
        (folder / "2.wav").read_bytes() + (folder / "0.wav").read_bytes()
    )
    with_tracks(folder / "3.mkv", [sound(0.3), sound(0.5, hz=700)])
    lines = [json.loads(line) for line in items.read_text().splitlines()[1:4]]
    lines[2] |= {"audio": "3.mkv", "track": 2}
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    failed = run(paired, read_manifest(items), out, SETTINGS)
    assert list(failed) == ["item1"]
    assert "a named pipe" in failed["item1"]
    done = {r["id"]: r for r in map(json.loads, (out / "done.jsonl").read_text().splitlines())}
    assert "is 2 recordings" in done["item2"]["notes"][0]
    assert "notes" not in done["item3"]
    target = audio.load(out / "item2.target.wav")
    assert target.samples.shape[1] / target.sample_rate == pytest.approx(1.61, abs=0.001)
    target = audio.load(out / "item3.target.wav")
    assert target.samples.shape[1] / target.sample_rate == pytest.approx(0.5, abs=0.001)


def test_a_changed_line_is_separated_again(paired, items, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    before = stems(out)
    items.write_text(items.read_text().replace("dog", "cat", 1))
    run(paired, read_manifest(items), out, SETTINGS)
    changed = [name for name, content in stems(out).items() if content != before[name]]
    assert sorted(changed) == ["item0.residual.wav", "item0.target.wav"]


def test_a_changed_recording_is_separated_again(paired, items, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    before = stems(out)
    (items.parent / "0.wav").unlink()  # nobody knows whether it has changed
    write_recording(items.parent / "3.wav", 1.01, 33)
    assert run(paired, read_manifest(items), out, SETTINGS) == {}
    changed = [name for name, content in stems(out).items() if content != before[name]]
    assert sorted(changed) == ["item3.residual.wav", "item3.target.wav"]
    assert len(ids(out / "done.jsonl")) == 9
    records = list(map(json.loads, (out / "done.jsonl").read_text().splitlines()))
    for record in records:
        assert record.pop("stamp").keys() == {"audio"}
    (out / "done.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    after = stems(out)
    write_recording(items.parent / "3.wav", 1.01, 34)
    assert run(paired, read_manifest(items), out, SETTINGS) == {}
    assert stems(out) == after  # of a record without a stamp nobody knows


def test_a_folder_of_masks_changes_with_its_pictures(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(b"white")
    line = {"id": "a", "audio": "a.wav", "video": "a.mp4", "mask": "masks"}
    (tmp_path / "items.jsonl").write_text(json.dumps(line))
    entries = read_manifest(tmp_path / "items.jsonl")
    before = find_stamps(entries)["a"]
    assert not has_changed(before, find_stamps(entries)["a"])
    state = folder.stat()
    (folder / "1.png").write_bytes(b"black!")
    assert folder.stat().st_mtime_ns == state.st_mtime_ns
    assert has_changed(before, find_stamps(entries)["a"])


def test_an_input_that_is_a_result_of_the_run_is_refused(paired, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_recording(out / "b.target.wav", 0.5, 1)
    lines = [{"id": "a", "audio": "out/b.target.wav"}, {"id": "b", "audio": "b.wav"}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = (out / "b.target.wav").read_bytes()
    with pytest.raises(UserError, match=r"the audio of a, .*b\.target\.wav, is a file of results"):
        run(paired, read_manifest(tmp_path / "items.jsonl"), out, SETTINGS)
    (tmp_path / "link.wav").symlink_to(out / "b.target.wav")
    lines[0] |= {"audio": "b.wav", "like": "link.wav"}
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"the like of a, .*link\.wav, is a file of results"):
        run(paired, read_manifest(tmp_path / "items.jsonl"), out, SETTINGS)
    assert [file.name for file in out.iterdir()] == ["b.target.wav"]
    assert (out / "b.target.wav").read_bytes() == before


def test_another_manifest_keeps_the_records_of_the_first(paired, items, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    entries = read_manifest(items)
    assert run(paired, entries[:1], out, SETTINGS) == {}
    assert ids(out / "done.jsonl") == [entry.id for entry in entries]
    assert count_done(out, {entries[0].id}) == 1


def test_a_run_is_not_continued_with_another_config(paired, items, whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "out")
    before = stems(out)
    monkeypatch.setattr(paired.pipeline, "level_db", -33.0)
    with pytest.raises(UserError, match=r"config was another one \(level_db: then .*, now -33"):
        run(paired, read_manifest(items), out, SETTINGS)
    saved = json.loads((out / "settings.json").read_text())
    assert saved["config"].pop("level_db") != -33.0
    (out / "settings.json").write_text(json.dumps({k: saved[k] for k in saved if k != "config"}))
    assert run(paired, read_manifest(items), out, SETTINGS) == {}  # older runs name none
    assert stems(out) == before


def test_a_run_is_not_continued_with_other_weights(paired, items, whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "out")
    saved = json.loads((out / "settings.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr("sam_audio_jax.infer.batch.run.fingerprint", lambda networks: "other")
        with pytest.raises(
            UserError, match=r"other weights of the checkpoint \(then .*, now other"
        ):
            run(paired, read_manifest(items), out, SETTINGS)
    assert json.loads((out / "settings.json").read_text()) == saved
    weights = saved.pop("weights")
    for older in ({}, {"weights": weights[:16]}):  # as runs of earlier versions
        (out / "settings.json").write_text(json.dumps(saved | older))
        assert run(paired, read_manifest(items), out, SETTINGS) == {}
        assert json.loads((out / "settings.json").read_text())["weights"] == weights


def test_a_header_that_is_wrong_does_no_harm(paired, items, whole, tmp_path, monkeypatch):
    header_length = audio.header_length

    def wrong(path):
        samples, rate = header_length(path)
        return (8_080 if str(path).endswith("8.wav") else samples, rate)

    monkeypatch.setattr(audio, "header_length", wrong)
    assert run(paired, read_manifest(items), tmp_path / "out", SETTINGS) == {}
    right, wrong = (
        audio.load(folder / "item8.target.wav").samples for folder in (whole, tmp_path / "out")
    )
    np.testing.assert_allclose(right, wrong, atol=2e-5)


def test_a_folder_belongs_to_its_settings(tmp_path):
    (tmp_path / "settings.json").write_text('{"checkpoint": "x", "seed": 2}')
    with pytest.raises(UserError, match="seed: then 2, now 1"):
        check_run_folder(tmp_path, SETTINGS)
    older = {"checkpoint": "x", "seed": 1, "method": None, "steps": None, "refine": None}
    older |= {"candidates": 1, "predict_spans": False, "span_predictor": None}
    (tmp_path / "settings.json").write_text(json.dumps(older))  # before `watermark` was among them
    check_run_folder(tmp_path, SETTINGS)
    (tmp_path / "settings.json").unlink()
    (tmp_path / ".settings.12345678.part.json").touch()  # another process is about to start
    check_run_folder(tmp_path, SETTINGS)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        check_run_folder(tmp_path, SETTINGS)
