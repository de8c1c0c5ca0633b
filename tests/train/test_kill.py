"""`launch/train.py`, killed outright several times, ends where an undisturbed process does."""

import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import orbax.checkpoint.experimental.v1 as ocp
import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.workdir import Workdir
from tests.children import environment
from tests.train.metrics import untimed

ROOT = pathlib.Path(__file__).parent.parent.parent
STEPS = 100
TIMEOUT_S = 600  # for one process to start and save; seconds are enough on a free machine

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def start(tmp_path_factory, manifest):
    """Starts a training process in a workdir; what still runs at the end is killed."""
    running = []
    cache = tmp_path_factory.mktemp("cache")

    def run(workdir: pathlib.Path, *flags: str, **variables: str) -> subprocess.Popen:
        command = [sys.executable, "launch/train.py", "tests/train/tiny.py"]
        command += ["--workdir", str(workdir), "--steps", str(STEPS), *flags]
        command += ["--data.source.manifests", str(manifest)]
        variables = environment(XDG_CACHE_HOME=str(cache), **variables)
        with log_of(workdir).open("a") as log:
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)
            )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory) -> pathlib.Path:
    """The workdir of an undisturbed run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finish(start(workdir, "--checkpoint.every-steps", "1000"), workdir)
    return workdir


def log_of(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.with_suffix(".log")


def finish(process: subprocess.Popen, workdir: pathlib.Path):
    assert process.wait(TIMEOUT_S) == 0, log_of(workdir).read_text()[-2000:]


def metrics(workdir: pathlib.Path) -> list[dict]:
    """The metrics without times."""
    return untimed(Workdir(workdir).read_metrics())


def wait_for_a_new_save(workdir: pathlib.Path, process: subprocess.Popen):
    before = Workdir(workdir).steps()[-1:]
    deadline = time.monotonic() + TIMEOUT_S
    while Workdir(workdir).steps()[-1:] in (before, []):
        assert process.poll() is None, "the run ended before all kills"
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.005)


def everything(workdir: pathlib.Path, step: int) -> dict:
    """Parameters, average and the rest (moments, step, key) of a checkpoint."""
    return {
        item: ocp.load(workdir / "checkpoints" / str(step), checkpointable_name=item)
        for item in ("params", "ema", "rest")
    }


def kill_while_it_starts(start: Callable, workdir: pathlib.Path, seconds: float, **variables: str):
    process = start(workdir, **variables)
    time.sleep(seconds)
    kill(process)


def kill_around_a_save(start: Callable, workdir: pathlib.Path, seconds: float, **variables: str):
    """Between two steps or in the middle of a save."""
    process = start(workdir, **variables)
    wait_for_a_new_save(workdir, process)
    time.sleep(seconds)
    kill(process)


def kill(process: subprocess.Popen):
    assert process.poll() is None, "the run ended before all kills"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_two_kills_at_random_moments_and_a_sigterm_change_nothing(start, whole, same, tmp_path):
    """Takes long because four training processes, and one undisturbed, start and compile."""
    rng, killed = random.Random(0), tmp_path / "killed"
    kill_while_it_starts(start, killed, rng.uniform(0.2, 4.0))
    kill_around_a_save(start, killed, rng.uniform(0.0, 0.1))
    process = start(killed)
    wait_for_a_new_save(killed, process)
    process.send_signal(signal.SIGTERM)
    finish(process, killed)
    assert "saved, run again to go on" in log_of(killed).read_text()
    finish(start(killed), killed)
    assert same(everything(whole, STEPS), everything(killed, STEPS))
    assert metrics(whole) == metrics(killed)
    model = SAMAudio.from_pretrained(killed)
    assert model.sampler == SamplerConfig(method="euler", steps=2)  # as the run's config says


@pytest.mark.long
def test_ten_kills_change_nothing_even_without_a_compilation_cache(start, whole, same, tmp_path):
    """The cache starts empty, so that processes are also killed while they write into it."""
    rng, killed = random.Random(1), tmp_path / "killed"
    empty = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for number in range(10):
        if number in (0, 5):
            kill_while_it_starts(start, killed, rng.uniform(0.2, 4.0), **empty)
        else:
            kill_around_a_save(start, killed, rng.uniform(0.0, 0.05), **empty)
    finish(start(killed, **empty), killed)
    assert same(everything(whole, STEPS), everything(killed, STEPS))
    assert metrics(whole) == metrics(killed)
