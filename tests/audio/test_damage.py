"""Damage costs its moment, not the recording."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sam_audio_jax import audio
from tests.audio.recordings import RATE, by_av, by_soundfile, lag, level, sound
from tests.children import ROOT, environment

WAVE = sound(3.0)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("flac", "flac"),
        ("m4a", "aac"),
        ("mp4", "aac"),
        ("mka", "flac"),
        ("ac3", "ac3"),
    ],
)
def test_what_follows_damage_keeps_its_time(tmp_path, kind, codec):
    path = by_av(tmp_path / f"a.{kind}", WAVE, codec)
    whole = audio.load(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 200] = np.random.default_rng(3).bytes(200)
    path.write_bytes(content)
    damaged = audio.load(path)
    assert damaged.samples.shape[1] == pytest.approx(whole.samples.shape[1], abs=0.1 * RATE)
    same = np.isclose(damaged.samples[:, -RATE:], whole.samples[:, -RATE:], atol=1e-3)
    if kind != "ac3":  # which has no time stamps
        assert damaged.samples.shape == whole.samples.shape
        assert same.mean() > 0.99
    assert abs(lag(damaged.samples[:, -RATE:], whole.samples[:, -RATE:])) < 0.1


@pytest.mark.parametrize(("kind", "silent"), [("flac", (1.1, 1.4)), ("opus", (0.0, 1.95))])
def test_a_lost_block_is_silent(tmp_path, kind, silent):
    """Opus here has pages of a second, and the block lies in two of them."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, WAVE.shape)
    path = by_soundfile(tmp_path / f"a.{kind}", (WAVE + noise).astype(np.float32))
    whole = audio.load(path)
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + content[third + len(content) // 6 :])
    damaged = audio.load(path)
    assert damaged.samples.shape[1] == pytest.approx(whole.samples.shape[1], abs=0.03 * RATE)
    assert level(damaged.samples, *silent) == 0
    assert abs(lag(damaged.samples[:, -RATE:], whole.samples[:, -RATE:])) < 0.03


def damaged_files(seed: int, count: int, seconds: float) -> list[dict]:
    """Results of `mutated.py` in a process of its own, whose end of any kind is seen."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.audio.mutated", str(seed), str(count)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == count
    for result in results:
        assert result.get("seconds", 1) > 0
        assert "\n" not in result.get("refused", "")
        assert "Errno" not in result.get("refused", "")
    return results


@pytest.mark.processes
def test_damaged_files_are_decoded_or_refused():
    results = damaged_files(seed=1, count=54, seconds=120)
    assert sum("seconds" in result for result in results) > 30


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("seed", [2, 3])
def test_a_thousand_damaged_files_are_decoded_or_refused(seed):
    results = damaged_files(seed=seed, count=1_000, seconds=900)
    assert sum("seconds" in result for result in results) > 600
