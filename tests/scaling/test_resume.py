"""A study of real trainings in processes of its own: killed and resumed it has the same table.

What the runs have kept can then be scored.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.children import ROOT, environment

pytestmark = [pytest.mark.processes, pytest.mark.long]

FILE = """
import dataclasses
from sam_audio_jax.scaling.study import StudyConfig
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig
from tests.train.tiny import CONFIG as TINY
BASE = dataclasses.replace(
    TINY,
    optim=OptimConfig(warmup_steps=2, peak_lr=1e-3),
    checkpoint=CheckpointConfig(every_steps=5, keep_last=1),
    eval_bench="embedded",
    eval_limit=2,
    log_every=5,
)
CONFIG = StudyConfig(base=BASE, widths=(8, 16), steps=(10, 20, 40))
"""


def start(study: pathlib.Path, workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "launch/scaling.py", str(study), "--workdir", str(workdir), *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, f"no {path}"
        time.sleep(0.05)


def test_a_killed_study_goes_on_to_the_same_table_can_be_extended_and_scored(tmp_path):
    study, whole, killed = tmp_path / "study.py", tmp_path / "whole", tmp_path / "killed"
    study.write_text(FILE)
    finish(start(study, whole))
    process = start(study, killed)
    wait_for(killed / "runs" / "w16-s0" / "checkpoints" / "15", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(study, killed))
    table = json.loads((whole / "table.json").read_text())
    assert json.loads((killed / "table.json").read_text()) == table
    assert [(row["run"], row["step"]) for row in table] == [
        (run, step) for run in ("w8-s0", "w16-s0") for step in (10, 20, 40)
    ]
    assert all(row["losses"]["all"] > 0 and not row["diverged"] for row in table)
    before = (killed / "runs" / "w8-s0" / "metrics.jsonl").stat().st_mtime_ns
    finish(start(study, killed, "--widths", "8", "16", "24"))
    extended = json.loads((killed / "table.json").read_text())
    assert extended[: len(table)] == table
    assert extended[-1]["run"] == "w24-s0"
    assert (killed / "runs" / "w8-s0" / "metrics.jsonl").stat().st_mtime_ns == before
    finish(start(study, killed, "--widths", "8", "16", "24", "--run", "w24-s0", "--scores"))
    scored = json.loads((killed / "table.json").read_text())
    assert [row | {"scores": {}} for row in scored] == extended
    assert [bool(row["scores"]) for row in scored] == 8 * [False] + [True]
    assert {"sisdri/all/text", "sisdri/all/text+span"} <= scored[-1]["scores"].keys()
