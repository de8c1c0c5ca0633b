"""`launch/train.py` killed outright ten times ends where an undisturbed process does."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import orbax.checkpoint.experimental.v1 as ocp
import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.workdir import Workdir

ROOT = pathlib.Path(__file__).parent.parent.parent
KILLS = 10
PATIENCE_S = 600  # for one process to start and save; seconds are enough on a free machine


@pytest.fixture
def start(tmp_path, manifest):
    """Starts a training process in `tmp_path / name`; what still runs at the end is killed."""
    running = []

    def run(name: str, *flags: str) -> subprocess.Popen:
        command = [sys.executable, "launch/train.py", "tests/train/tiny.py"]
        command += ["--workdir", str(tmp_path / name), *flags]
        command += ["--data.source.manifests", str(manifest)]
        environment = os.environ | {
            "PYTHONPATH": ".",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        with (tmp_path / f"{name}.log").open("a") as log:
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


def finish(process: subprocess.Popen, log: pathlib.Path):
    assert process.wait(PATIENCE_S) == 0, log.read_text()[-2000:]


def wait_for_a_new_save(workdir: pathlib.Path, process: subprocess.Popen):
    before = Workdir(workdir).steps()[-1:]
    give_up = time.monotonic() + PATIENCE_S
    while Workdir(workdir).steps()[-1:] in (before, []):
        assert process.poll() is None, "the run ended before all kills"
        assert time.monotonic() < give_up, "nothing was saved"
        time.sleep(0.005)


def untimed(workdir: pathlib.Path) -> list[dict]:
    """The metrics without what the clock says."""
    lines = Workdir(workdir).read_metrics()
    return [{k: v for k, v in line.items() if not k.startswith("seconds_")} for line in lines]


def everything(workdir: pathlib.Path, step: int) -> dict:
    """Parameters, average and the rest (moments, step, key) of a checkpoint."""
    return {
        item: ocp.load(workdir / "checkpoints" / str(step), checkpointable_name=item)
        for item in ("params", "ema", "rest")
    }


@pytest.mark.slow  # a dozen processes, each of which imports JAX and loads its programs: 3 min
def test_ten_kills_at_random_moments_change_nothing(start, same, tmp_path):
    finish(start("whole", "--checkpoint.every-steps", "1000"), tmp_path / "whole.log")
    rng = random.Random(0)
    killed = tmp_path / "killed"
    for number in range(KILLS):
        process = start("killed")
        if number in (0, 5):  # while it starts
            time.sleep(rng.uniform(0.2, 4.0))
        else:  # between two steps or in the middle of a save
            wait_for_a_new_save(killed, process)
            time.sleep(rng.uniform(0.0, 0.2))
        assert process.poll() is None, "the run ended before all kills"
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(start("killed"), tmp_path / "killed.log")
    assert same(everything(tmp_path / "whole", 300), everything(killed, 300))
    assert untimed(tmp_path / "whole") == untimed(killed)


@pytest.mark.slow  # three processes, each of which imports JAX and loads its programs: 40 s
def test_sigterm_saves_and_the_next_process_goes_on(start, same, tmp_path):
    finish(start("whole", "--steps", "60"), tmp_path / "whole.log")
    process = start("stopped", "--steps", "60")
    wait_for_a_new_save(tmp_path / "stopped", process)
    process.send_signal(signal.SIGTERM)
    finish(process, tmp_path / "stopped.log")
    assert "saved, run again to go on" in (tmp_path / "stopped.log").read_text()
    finish(start("stopped", "--steps", "60"), tmp_path / "stopped.log")
    assert same(everything(tmp_path / "whole", 60), everything(tmp_path / "stopped", 60))
    model = SAMAudio.from_pretrained(tmp_path / "stopped")
    assert model.sampler == SamplerConfig(method="euler", steps=2)  # as the run's config says
