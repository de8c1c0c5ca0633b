"""Kills commands at random moments and compares what they leave with undisturbed runs.

python -m tests.cli.kills [--kills 25] [--seed 0] [--only NAME ...] [--folder DIR]

Each of `train`, `separate --manifest`, `evaluate`, `prepare` (also with a vision tower that looks
at videos) and `label` is killed so many times, in rounds that have one process or two by turns:
from the first import on, in the middle of saves and of the last clean-up. The one that is killed is
any of the processes, or all at once. A round ends with a start that nothing disturbs; then its
results must be those of the undisturbed run, to the byte (training: parameters, averages, moments
and metrics without times), with nothing beside them, no process and no shared memory.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import soundfile

from sam_audio_jax.files import PART, write_jsonl
from sam_audio_jax.workdir import Workdir
from tests.children import ROOT, environment
from tests.eval.listing import make_folder, three_lines
from tests.tower_model import write_model
from tests.train.metrics import untimed
from tests.video.clips import HEIGHT, WIDTH, disc
from tests.video.clips import write as write_video

MARK = "SAM_AUDIO_TEST_KILLS"  # variable by which processes of a round are found
KILLS_OF_ROUND = 6
FRAMES = 7  # pictures of a video
TIMEOUT_S = 600  # of a start that nothing disturbs
SOON_S = 60  # until what a killed process started has ended
CONFIG = "tests/train/tiny.py"
LOST = "error: process"  # the line of a process of a training that lost another one


@dataclasses.dataclass(frozen=True)
class Victim:
    """A command that is killed."""

    name: str
    arguments: Callable[[pathlib.Path], list[str]]  # for its results in a folder
    digest: Callable[[pathlib.Path], Any]  # all that two runs have in common
    together: bool = False  # whether its processes need each other


def victims(inputs: pathlib.Path) -> list[Victim]:
    """The commands; `make_inputs` has made their inputs."""
    data = ["--data.source.manifests", str(inputs / "tones" / "manifest.jsonl")]
    model = ["--checkpoint", str(inputs / "model")]

    def train(out: pathlib.Path) -> list[str]:
        steps = ["--steps", "30", "--checkpoint.every-steps", "5"]
        return ["train", CONFIG, "--workdir", str(out), *data, *steps]

    def separate(out: pathlib.Path) -> list[str]:
        items = ["--manifest", str(inputs / "items.jsonl"), "--out", str(out)]
        return ["separate", *items, *model, "--steps", "2"]

    def evaluate(out: pathlib.Path) -> list[str]:
        bench = ["--bench", str(inputs / "bench"), "--out", str(out), "--steps", "2"]
        return ["evaluate", *model, *bench]

    def prepare(out: pathlib.Path) -> list[str]:
        return ["prepare", CONFIG, "--out", str(out), "--items", "512", *data]

    def prepare_videos(out: pathlib.Path) -> list[str]:
        films = ["--data.source.manifests", str(inputs / "films" / "manifest.jsonl")]
        tower = ["--vision-checkpoint", str(inputs / "vision")]
        return ["prepare", CONFIG, "--out", str(out), "--items", "256", *films, *tower]

    def label(out: pathlib.Path) -> list[str]:
        options = ["--checkpoint", str(inputs / "folder"), "--per-shard", "2", "--steps", "1"]
        filters = ["--filters", "silence", "remix", "agreement_noise"]
        return ["label", str(inputs / "items.jsonl"), "--out", str(out), *options, *filters]

    return [
        Victim("train", train, training_digest, together=True),
        Victim("separate", separate, files_digest),
        Victim("evaluate", evaluate, files_digest),
        Victim("prepare", prepare, files_digest),
        Victim("prepare-videos", prepare_videos, files_digest),
        Victim("label", label, files_digest),
    ]


def make_inputs(folder: pathlib.Path) -> None:
    """Recordings with and without videos, items, a bench, a vision tower, and a trained model."""
    rng = np.random.default_rng(0)
    (folder / "tones").mkdir(parents=True)
    lines, items = [], []
    for number in range(16):
        seconds = 1.0 if number < 8 else 1.0 + number / 8
        clock = np.arange(round(800 * seconds)) / 800
        wave = 0.3 * np.sin(2 * np.pi * 30 * (number % 8 + 1) * clock)
        path = folder / "tones" / f"{number}.wav"
        soundfile.write(path, wave + 0.05 * rng.normal(size=len(wave)), 800)
        name = {"id": f"tone-{number}", "caption": f"tone {number}"}
        lines.append(
            name
            | {"path": path.name, "category": "sfx", "source_id": f"source-{number}"}
            | {"duration": seconds, "license": "CC0-1.0"}
        )
        items.append({"id": name["id"], "audio": str(path), "text": name["caption"]})
    write_jsonl(folder / "tones" / "manifest.jsonl", lines)
    write_jsonl(folder / "items.jsonl", items)
    (folder / "films").mkdir()
    for number, line in enumerate(lines):
        np.savez(folder / "films" / f"{number}.npz", mask=disc(FRAMES))
        brightness = np.uint8(40 + 10 * number)
        pictures = np.broadcast_to(brightness, (FRAMES, HEIGHT, WIDTH, 3))
        write_video(folder / "films" / f"{number}.mp4", pictures)
        line |= {"path": str(folder / "tones" / line["path"])}
        line |= {"video": f"{number}.mp4", "mask": f"{number}.npz"}
    write_jsonl(folder / "films" / "manifest.jsonl", lines)
    write_model(folder / "vision")
    make_folder(folder / "bench", three_lines())
    trained = victims(folder)[0].arguments(folder / "model")
    command = [sys.executable, "-m", "sam_audio_jax.cli", *trained, "--steps", "2"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    # Labels are refused for a run with a random codec, which a folder does not say that it has.
    model = ["--from", str(folder / "model"), "--to", str(folder / "folder")]
    command = [sys.executable, "-m", "sam_audio_jax.cli", "convert", *model]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)


def training_digest(workdir: pathlib.Path) -> Any:
    """Parameters, average and the rest of the newest checkpoint; metrics without times."""
    run = Workdir(workdir)
    newest = str(run.checkpoint(run.steps()[-1]))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # wherever they were saved
    saved = ocp.checkpointables_metadata(newest).metadata
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        {name: saved[name] for name in ("params", "ema", "rest")},
    )
    tree = ocp.load_checkpointables(newest, like)
    leaves = [hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for x in jax.tree.leaves(tree)]
    metrics = untimed(run.read_metrics())
    return run.steps(), leaves, metrics, sorted(entry.name for entry in workdir.iterdir())


def files_digest(out: pathlib.Path) -> Any:
    """The hash of every file; lines that processes append are in no order.

    Whichever process measures a recording first keeps its length, so that `lengths.*` are left out.
    """
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name.startswith("lengths."):
            continue
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            data = b"".join(sorted(data.splitlines(keepends=True)))
        found[str(path.relative_to(out))] = hashlib.sha256(data).hexdigest()
    return found


class Round:
    """Starts of one command for one folder of results, each of `count` processes."""

    def __init__(self, victim: Victim, count: int, folder: pathlib.Path):
        self.victim, self.count, self.folder = victim, count, folder
        self.out, self.log = folder / "results" / "out", folder / "log"
        self.mark = uuid.uuid4().hex
        for name in ("results", "temporary", "cache"):
            (folder / name).mkdir(parents=True)

    def start(self) -> list[subprocess.Popen]:
        address = f"127.0.0.1:{free_port()}"
        processes = []
        for index in range(self.count):
            arguments, variables = self.victim.arguments(self.out), {}
            if self.count > 1 and self.victim.together:
                variables = {
                    "SAM_AUDIO_COORDINATOR": address,
                    "SAM_AUDIO_PROCESSES": str(self.count),
                    "SAM_AUDIO_PROCESS_ID": str(index),
                    "SAM_AUDIO_START_TIMEOUT": "20",
                }
            elif self.count > 1:
                arguments += ["--process", str(index), "--processes", str(self.count)]
            elif self.victim.together:
                arguments += ["--data.workers", "1"]
            variables |= {
                MARK: self.mark,
                "TMPDIR": str(self.folder / "temporary"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
            }
            with self.log.open("a") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "sam_audio_jax.cli", *arguments],
                        cwd=ROOT,
                        env=environment(**variables),
                        stdout=log,
                        stderr=log,
                    )
                )
        return processes

    def finish(self) -> None:
        """A start that nothing disturbs; of results that are whole already status 2 says so."""
        for process in self.start():
            status = process.wait(TIMEOUT_S)
            assert status == 0 or (status == 2 and "exists; name a folder" in self.text()), (
                f"status {status}: {self.text()[-2000:]}"
            )

    def kill(self, rng: random.Random, longest_s: float) -> float | None:
        """A start that is killed within so many seconds; how long it took if it ended before."""
        processes, began = self.start(), time.monotonic()
        chosen = rng.choice([[process] for process in processes] + [processes])
        moment = began + rng.uniform(0, longest_s)
        while time.monotonic() < moment and any(one.poll() is None for one in processes):
            time.sleep(0.005)
        took = time.monotonic() - began
        alive = [process for process in chosen if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            status = process.wait(TIMEOUT_S)
            allowed = {-signal.SIGKILL} if process in alive else {0, 1, 2}
            assert status in allowed, f"status {status}: {self.text()[-2000:]}"
        return None if alive else took

    def text(self) -> str:
        return self.log.read_text()

    def left_behind(self) -> list[str]:
        """What is there and should not be, once processes have had a while to end."""
        deadline = time.monotonic() + SOON_S
        while (running := marked_processes(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = [f"process {pid}" for pid in running]
        entries = [entry for entry in self.out.parent.iterdir() if entry != self.out]
        entries += [entry for entry in self.out.rglob("*") if PART in entry.name]
        entries += list((self.folder / "temporary").iterdir())
        return left + [str(entry.relative_to(self.folder)) for entry in entries]


def marked_processes(mark: str) -> list[int]:
    """The processes, of whatever parent, that have the mark of a round in their environment."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
            if f"{MARK}={mark}".encode() in variables.split(b"\0"):
                found.append(int(entry.name))
    return found


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def campaign(victim: Victim, kills: int, seed: int, folder: pathlib.Path) -> Iterator[str]:
    """Yields a line for each round; raises AssertionError where a round ends in another way."""
    rng, done, number, memory = random.Random(f"{victim.name} {seed}"), 0, 0, shared_memory()
    wanted, longest_s = {}, {}
    for count in (1, 2):
        whole = Round(victim, count, folder / f"{victim.name}-{count}")
        began = time.monotonic()
        whole.finish()
        longest_s[count] = time.monotonic() - began
        wanted[count] = victim.digest(whole.out)
        yield f"{victim.name}, {count} processes: undisturbed in {longest_s[count]:.1f} s"
    while done < kills:
        count = 1 + number % 2
        attempt = Round(victim, count, folder / f"{victim.name}-{count}-{number}")
        killed = 0
        while killed < min(KILLS_OF_ROUND, kills - done):
            if took := attempt.kill(rng, longest_s[count]):
                longest_s[count] = took if not killed else longest_s[count]  # of a whole run, now
                break
            killed += 1
        attempt.finish()
        left = attempt.left_behind()
        left += sorted(shared_memory() - memory)
        assert not left, f"{attempt.folder}: left behind are {left}"
        assert "Traceback" not in attempt.text(), f"{attempt.log} has a traceback"
        found = victim.digest(attempt.out)
        assert found == wanted[count], f"{attempt.folder}: other results\n{found}\n{wanted[count]}"
        done, number = done + killed, number + 1
        yield f"{victim.name}, {count} processes: {killed} kills, {done} in all, results as wanted"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of commands")
    parser.add_argument("--folder", type=pathlib.Path, help="is kept; default: a temporary one")
    options = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        folder = options.folder or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_inputs(folder / "inputs")
        for victim in victims(folder / "inputs"):
            if options.only and victim.name not in options.only:
                continue
            for line in campaign(victim, options.kills, options.seed, folder):
                print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
