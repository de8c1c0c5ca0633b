"""Processes that share a manifest leave what one leaves, whichever of them are killed."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from sam_audio_jax import audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import writing_to
from sam_audio_jax.infer.batch import lengths
from sam_audio_jax.infer.batch.ledger import Ledger
from sam_audio_jax.infer.batch.run import _Run, run
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.process_rank import ProcessRank
from tests.children import ROOT, environment
from tests.infer.batch.conftest import RATE, SETTINGS, ids, stems


@pytest.fixture
def solved(monkeypatch) -> list[str]:
    """The ids of items that were separated, in order."""
    names = []
    write = _Run.write

    def noting(self, members, items, results):
        names.extend(items)
        write(self, members, items, results)

    monkeypatch.setattr(_Run, "write", noting)
    return names


def test_two_processes_leave_the_bytes_of_one(paired, items, whole, solved, tmp_path):
    entries, out = read_manifest(items), tmp_path / "out"
    for index in (0, 1):
        assert run(paired, entries, out, SETTINGS, ProcessRank(index, 2)) == {}
    assert sorted(solved) == [entry.id for entry in entries]  # each by one of them only
    assert stems(out) == stems(whole)
    assert ids(out / "done.jsonl") == ids(whole / "done.jsonl")


def test_a_second_run_does_not_write_into_the_folder_of_the_first(paired, items, tmp_path):
    """Two tasks of a job array that do not know of each other, for one."""
    entries, out = read_manifest(items), tmp_path / "out"
    out.mkdir()
    with writing_to(out, writer=0, writers=1):
        for rank in (ProcessRank(), ProcessRank(1, 2)):
            with pytest.raises(UserError, match="another process is writing to"):
                run(paired, entries, out, SETTINGS, rank)
    assert list(out.iterdir()) == []
    with writing_to(out, writer=0, writers=2):
        with pytest.raises(UserError, match="share the items by --processes N --process I"):
            run(paired, entries, out, SETTINGS)
        assert run(paired, entries, out, SETTINGS, ProcessRank(1, 2)) == {}


def test_other_processes_continue_where_a_killed_one_was(
    paired, items, whole, solved, tmp_path, monkeypatch
):
    """Process 1 of 2 dies, then three processes, then one: each item is separated once."""
    entries, out = read_manifest(items), tmp_path / "out"
    run(paired, entries, out, SETTINGS, ProcessRank(0, 2))
    record, count = Ledger.record, [0]

    def dying(self, line):
        if count[0] == 1:
            raise KeyboardInterrupt
        count[0] += 1
        record(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", dying)
        with pytest.raises(KeyboardInterrupt):
            run(paired, entries, out, SETTINGS, ProcessRank(1, 2))
    before = set(ids(out / "done.0.jsonl") + ids(out / "done.1.jsonl"))
    assert 0 < len(before) < 9
    solved.clear()
    run(paired, entries, out, SETTINGS, ProcessRank(2, 3))
    third = set(solved)
    solved.clear()
    run(paired, entries, out, SETTINGS)
    assert not before & third
    assert set(solved) == {entry.id for entry in entries} - before - third
    assert stems(out) == stems(whole)
    assert len(ids(out / "done.jsonl")) == 9
    assert not list(out.glob("done.*.jsonl"))


def test_failures_of_all_processes_are_listed(paired, items, tmp_path):
    (items.parent / "6.wav").write_bytes(b"no sound")  # process 0 records it
    audio.write_wav(items.parent / "5.wav", np.zeros((1, 4_800)), RATE)  # in a group of process 1
    entries, out = read_manifest(items), tmp_path / "out"
    failed = [run(paired, entries, out, SETTINGS, ProcessRank(index, 2)) for index in (0, 1)]
    assert [list(reasons) for reasons in failed] == [["item6"], ["item5"]]
    assert ids(out / "failed.jsonl") == ["item5", "item6"]
    assert len(ids(out / "done.jsonl")) == 7


def test_items_that_a_process_did_not_see_are_in_somebodys_share(
    paired, items, whole, solved, tmp_path
):
    """Process 1 starts before a file is there, so that the plans differ."""
    entries, out, file = read_manifest(items), tmp_path / "out", items.parent / "0.wav"
    file.rename(tmp_path / "away.wav")
    assert run(paired, entries, out, SETTINGS, ProcessRank(1, 2)) == {}
    first = set(solved)
    (tmp_path / "away.wav").rename(file)
    with pytest.warns(UserWarning, match="items in no process's share"):
        assert run(paired, entries, out, SETTINGS, ProcessRank(0, 2)) == {}
    assert first < {entry.id for entry in entries}
    assert stems(out).keys() == stems(whole).keys()  # the bytes are those of other groups
    assert ids(out / "done.jsonl") == sorted(entry.id for entry in entries)


def test_an_item_that_nobody_else_sees_fails(paired, items, tmp_path):
    """Process 0 sees it, but leaves it to process 1."""
    entries, out = read_manifest(items), tmp_path / "out"
    assert run(paired, entries, out, SETTINGS, ProcessRank(0, 2)) == {}
    missing = next(entry for entry in entries if entry.id not in ids(out / "done.0.jsonl"))
    missing.audio.unlink()
    with pytest.warns(UserWarning, match="items in no process's share"):
        failed = run(paired, entries, out, SETTINGS, ProcessRank(1, 2))
    assert list(failed) == [missing.id]
    assert ids(out / "failed.jsonl") == [missing.id]
    assert len(ids(out / "done.jsonl")) == 8


def test_lengths_are_measured_once_and_together(items, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    paths = [(entry.audio, None) for entry in read_manifest(items)]
    measured, failed = lengths.measure(paths, out, ProcessRank(0, 2))
    assert failed == {}
    assert measured[paths[1]] == (4_800, RATE)
    opened = []
    monkeypatch.setattr(audio, "header_length", lambda path: opened.append(path) or (RATE, RATE))
    assert lengths.measure(paths, out, ProcessRank(1, 2)) == (measured, {})
    assert opened == []
    os.utime(paths[1][0], (1, 1))
    again, _ = lengths.measure(paths, out, ProcessRank(0, 1))
    assert again == measured | {paths[1]: (RATE, RATE)}
    assert opened == [paths[1][0]]


@pytest.mark.processes
@pytest.mark.parametrize("count", [2, pytest.param(1, marks=pytest.mark.long)])
def test_a_process_killed_outright_is_continued_by_another(model, folder, items, tmp_path, count):
    """20 s: a process that is killed, and one that continues; each loads JAX and the model."""
    out = tmp_path / "out"

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "launch/separate.py", "--checkpoint", str(folder)]
        command += ["--manifest", str(items), "--out", str(out), "--seed", "1", *arguments]
        variables = environment(JAX_DEFAULT_MATMUL_PRECISION="highest")
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)

    def log() -> str:
        return (tmp_path / "log").read_text()[-2000:]

    killed = start() if count == 1 else start("--process", "0", "--processes", str(count))
    ledger = out / ("done.jsonl" if count == 1 else "done.0.jsonl")
    try:
        give_up = time.monotonic() + 300
        while not ledger.is_file() or not ledger.stat().st_size:
            assert killed.poll() is None, log()
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        killed.kill()
        killed.wait()
    times = {name: (out / name).stat().st_mtime_ns for name in stems(out)}
    finished = set(ids(ledger))
    assert start().wait(300) == 0, log()
    assert len(ids(out / "done.jsonl")) == 9
    assert not list(out.glob(".*"))
    for name, time_before in times.items():
        if name.split(".")[0] in finished:
            assert (out / name).stat().st_mtime_ns == time_before
    run(model, read_manifest(items), tmp_path / "whole", SETTINGS)
    assert stems(out) == stems(tmp_path / "whole")
