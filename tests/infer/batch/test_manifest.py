"""A manifest run goes on where it was stopped, to the same end; bad items stop no others."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.distributed import ProcessRank
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.batch import lengths, run
from sam_audio_jax.infer.batch.ledger import Ledger
from sam_audio_jax.infer.batch.manifest import read_manifest
from sam_audio_jax.infer.buckets import BucketConfig
from tests.video.clips import greys
from tests.video.clips import write as write_video

ROOT = pathlib.Path(__file__).parents[3]
SETTINGS = run.Settings(checkpoint="x", seed=1)


@pytest.fixture
def items(tmp_path, noise_of):
    """A manifest of four recordings of one length."""
    lines = []
    for number in range(4):
        audio.write_wav(tmp_path / f"{number}.wav", noise_of(1.01, number)[None], 8_000)
        lines.append({"id": f"item{number}", "audio": f"{number}.wav", "text": "dog"})
    lines[1]["spans"] = [["+", 0.1, 0.5]]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.wav")}


def test_a_killed_run_ends_as_an_undisturbed_one(model, items, tmp_path, monkeypatch):
    entries = read_manifest(items)
    assert run.run(model, entries, tmp_path / "whole", SETTINGS) == {}
    whole = files(tmp_path / "whole")
    assert sorted(whole) == sorted(
        f"item{i}.{stem}.wav" for i in range(4) for stem in ("target", "residual")
    )
    killed = tmp_path / "killed"
    write, written = audio.write_wav, []

    def dying(path, *rest):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "write_wav", dying)
        with pytest.raises(KeyboardInterrupt):
            run.run(model, entries, killed, SETTINGS)
    with (killed / "done.jsonl").open("a") as file:
        file.write('{"id": "item2", "fra')  # what a kill leaves of a line
    (killed / ".item2.12345678.part.wav").write_text("x")
    times = {name: (killed / name).stat().st_mtime_ns for name in files(killed)}
    assert run.run(model, entries, killed, SETTINGS) == {}
    assert files(killed) == whole
    for name in ("item0.target.wav", "item1.residual.wav"):  # finished items are left alone
        assert (killed / name).stat().st_mtime_ns == times[name]
    assert not list(killed.glob(".*"))
    done = [json.loads(line)["id"] for line in (killed / "done.jsonl").read_text().splitlines()]
    assert sorted(done) == ["item0", "item1", "item2", "item3"]


def test_a_bad_item_stops_no_other(model, items, tmp_path, noise_of):
    audio.write_wav(tmp_path / "1.wav", np.zeros((1, 8_080)), 8_000)
    (tmp_path / "2.wav").write_bytes(b"no sound")
    out = tmp_path / "out"
    failed = run.run(model, read_manifest(items), out, SETTINGS)
    assert list(failed) == ["item1", "item2"]
    assert "silent" in failed["item1"]
    assert "\n" not in failed["item2"]
    listed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in listed} == failed
    assert len(files(out)) == 4
    for number in (1, 2):
        audio.write_wav(tmp_path / f"{number}.wav", noise_of(1.01, number)[None], 8_000)
    assert run.run(model, read_manifest(items), out, SETTINGS) == {}
    assert len(files(out)) == 8
    assert not (out / "failed.jsonl").exists()


def test_lines_may_name_videos(model, items, tmp_path):
    write_video(tmp_path / "0.mp4", greys(11))
    (tmp_path / "mask.json").write_text(json.dumps([[2, 2, 20, 20]] * 11))
    (tmp_path / "short.json").write_text(json.dumps([[2, 2, 20, 20]] * 3))
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    lines[0] |= {"video": "0.mp4", "mask": "mask.json"}
    lines[2] |= {"video": "0.mp4", "mask": "short.json"}
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, entries = tmp_path / "out", read_manifest(items)
    failed = run.run(model, entries, out, SETTINGS)
    assert list(failed) == ["item2"]
    assert "has 3 frames, the video has more" in failed["item2"]
    assert (out / "item0.target.mp4").is_file()
    assert len(files(out)) == 6
    alone = model.separate(
        tmp_path / "0.wav",
        "dog",
        video=tmp_path / "0.mp4",
        mask=tmp_path / "mask.json",
        seed=SETTINGS.seed,
    )
    target = audio.load(out / "item0.target.wav").samples[0]
    np.testing.assert_allclose(target, alone.target, atol=2e-5)
    (out / "item0.target.mp4").unlink()  # what is missing is made again, to the same bytes
    before = files(out)
    assert list(run.run(model, entries, out, SETTINGS)) == ["item2"]
    assert (out / "item0.target.mp4").is_file()
    assert files(out) == before


def test_candidates_of_a_manifest(model, items, tmp_path):
    settings = run.Settings(checkpoint="x", candidates=2)
    failed = run.run(model, read_manifest(items), tmp_path / "out", settings)
    assert list(failed) == ["item0", "item2", "item3"]
    assert "candidates of item0 cannot be ranked: SpanIoU needs '+' spans" in failed["item0"]
    (record,) = map(json.loads, (tmp_path / "out" / "done.jsonl").read_text().splitlines())
    assert len(record["scores"]) == 2
    assert record["spans"] == [["+", 0.1, 0.5]]


def test_a_changed_item_is_made_again(model, items, tmp_path):
    out = tmp_path / "out"
    run.run(model, read_manifest(items), out, SETTINGS)
    before = files(out)
    items.write_text(items.read_text().replace("dog", "cat", 1))
    run.run(model, read_manifest(items), out, SETTINGS)
    changed = [name for name, content in files(out).items() if content != before[name]]
    assert sorted(changed) == ["item0.residual.wav", "item0.target.wav"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be an object"),
        ('{"id": "b"}', "line 2: audio must be a string, got None"),
        ('{"id": 7, "audio": "b.wav"}', "line 2: id must be a string, got 7"),
        ('{"id": "a", "audio": "b.wav"}', "line 2: id 'a' is that of line 1"),
        ('{"id": "../b", "audio": "b.wav"}', "line 2: id '../b' must serve as a file name"),
        ('{"id": "b", "audio": "b.wav", "txt": "x"}', "unknown key 'txt'; allowed: id, audio"),
        ('{"id": "b", "audio": "b.wav", "text": 3}', "line 2: text must be a string"),
        ('{"id": "b", "audio": "b.wav", "spans": [["?", 0, 1]]}', "'[?]' of .*line 2 is unknown"),
        ('{"id": "b", "audio": "b.wav", "spans": 4}', "spans of .*line 2 must be a list"),
        ('{"id": "b", "audio": "b.wav", "video": 4}', "line 2: video must be a string, got 4"),
        ('{"id": "b", "audio": "b.wav", "mask": "m"}', "line 2 has a mask but no video"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, said):
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "audio": "a.wav"}\n' + line + "\n")
    with pytest.raises(UserError, match=said):
        read_manifest(path)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(UserError, match="no manifest at"):
        read_manifest(tmp_path / "items.jsonl")
    (tmp_path / "items.jsonl").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_manifest(tmp_path / "items.jsonl")


def test_a_folder_belongs_to_its_settings(tmp_path):
    (tmp_path / "settings.json").write_text('{"checkpoint": "x", "seed": 2}')
    with pytest.raises(UserError, match="seed: then 2, now 1"):
        run.check_out(tmp_path, SETTINGS)
    (tmp_path / "settings.json").unlink()
    run.check_out(tmp_path, SETTINGS)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        run.check_out(tmp_path, SETTINGS)


@pytest.fixture
def many(tmp_path, noise_of):
    """A manifest of nine recordings of three lengths, and a model that solves four at once."""
    lines = []
    for number in range(9):
        seconds = 0.6 + 0.2 * (number % 3)
        audio.write_wav(tmp_path / f"{number}.wav", noise_of(seconds, number)[None], 8_000)
        lines.append({"id": f"item{number}", "audio": f"{number}.wav", "text": "dog"})
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_manifest(path)


@pytest.fixture
def solved(model, monkeypatch):
    """Names of the items that were really solved, in order."""
    names = []
    write = run._Run.write

    def noting(self, members, items, made):
        names.extend(items)
        write(self, members, items, made)

    monkeypatch.setattr(run._Run, "write", noting)
    monkeypatch.setattr(model, "buckets", BucketConfig(batch=2))
    return names


def ids(file: pathlib.Path) -> list[str]:
    return sorted(json.loads(line)["id"] for line in file.read_text().splitlines())


def test_two_processes_make_the_bytes_of_one(model, many, solved, tmp_path):
    run.run(model, many, tmp_path / "one", SETTINGS)
    solved.clear()
    for index in (0, 1):
        assert run.run(model, many, tmp_path / "two", SETTINGS, ProcessRank(index, 2)) == {}
    assert sorted(solved) == [entry.id for entry in many]  # each by one of them only
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert ids(tmp_path / "two" / "done.jsonl") == ids(tmp_path / "one" / "done.jsonl")


def test_other_processes_go_on_where_a_killed_one_was(model, many, solved, tmp_path, monkeypatch):
    """Process 1 of 2 dies, then three processes, then one: nothing is made twice or left out."""
    run.run(model, many, tmp_path / "whole", SETTINGS)
    solved.clear()
    out = tmp_path / "out"
    run.run(model, many, out, SETTINGS, ProcessRank(0, 2))
    record, count = Ledger.record, [0]

    def dying(self, line):
        if count[0] == 1:
            raise KeyboardInterrupt
        count[0] += 1
        record(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", dying)
        with pytest.raises(KeyboardInterrupt):
            run.run(model, many, out, SETTINGS, ProcessRank(1, 2))
    before = set(ids(out / "done.0.jsonl") + ids(out / "done.1.jsonl"))
    assert 0 < len(before) < 9
    solved.clear()
    run.run(model, many, out, SETTINGS, ProcessRank(2, 3))
    third = set(solved)
    solved.clear()
    run.run(model, many, out, SETTINGS)
    assert not before & third
    assert set(solved) == {entry.id for entry in many} - before - third
    assert files(out) == files(tmp_path / "whole")
    assert len(ids(out / "done.jsonl")) == 9
    assert not list(out.glob("done.*.jsonl"))


def test_failures_of_all_processes_are_listed(model, many, tmp_path):
    (tmp_path / "4.wav").write_bytes(b"no sound")
    audio.write_wav(tmp_path / "7.wav", np.zeros((1, 6_400)), 8_000)
    out = tmp_path / "out"
    found = [run.run(model, many, out, SETTINGS, ProcessRank(index, 2)) for index in (0, 1)]
    assert sorted(name for failed in found for name in failed) == ["item4", "item7"]
    assert ids(out / "failed.jsonl") == ["item4", "item7"]
    assert len(ids(out / "done.jsonl")) == 7


def test_lengths_are_measured_once_and_together(many, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    paths = [entry.audio for entry in many]
    found, failed = lengths.measure(paths, out, ProcessRank(0, 2))
    assert failed == {}
    assert found[paths[1]] == (6_400, 8_000)
    looked = []
    monkeypatch.setattr(audio, "header_length", lambda path: looked.append(path) or (8_000, 8_000))
    assert lengths.measure(paths, out, ProcessRank(1, 2)) == (found, {})
    assert looked == []
    os.utime(paths[1], (1, 1))
    assert lengths.measure(paths, out, ProcessRank(0, 1))[0] == found | {paths[1]: (8_000, 8_000)}
    assert looked == [paths[1]]


def test_a_header_that_is_wrong_does_no_harm(model, many, tmp_path, monkeypatch):
    run.run(model, many, tmp_path / "right", SETTINGS)
    said = audio.header_length

    def wrong(path):
        samples, rate = said(path)
        return (samples + 3_200 if str(path).endswith("5.wav") else samples, rate)

    monkeypatch.setattr(audio, "header_length", wrong)
    assert run.run(model, many, tmp_path / "wrong", SETTINGS) == {}
    stems = [
        audio.load(tmp_path / name / "item5.target.wav").samples for name in ("right", "wrong")
    ]
    np.testing.assert_allclose(stems[0], stems[1], atol=2e-5)


@pytest.mark.slow  # three processes that each load JAX and compile: 40 s
def test_a_process_killed_outright_is_finished_by_another(folder, many, tmp_path):
    out = tmp_path / "out"

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "launch/separate.py", "--checkpoint", str(folder)]
        command += ["--manifest", str(tmp_path / "items.jsonl"), "--out", str(out), *arguments]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ".", "JAX_PLATFORMS": "cpu"}
        environment["JAX_COMPILATION_CACHE_DIR"] = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
        log = (tmp_path / "log").open("a")
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    killed = start("--process", "0", "--processes", "2")
    try:
        give_up = time.monotonic() + 300
        while not (out / "done.0.jsonl").is_file() or not (out / "done.0.jsonl").stat().st_size:
            assert killed.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.wait()
    made = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    kept = set(ids(out / "done.0.jsonl"))
    alone = start()
    assert alone.wait(300) == 0, (tmp_path / "log").read_text()[-2000:]
    assert len(files(out)) == 18
    assert len(ids(out / "done.jsonl")) == 9
    for name, then in made.items():
        if name.split(".")[0] in kept:
            assert (out / name).stat().st_mtime_ns == then
