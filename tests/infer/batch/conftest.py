"""A manifest of nine recordings, and what one process makes of it without interruption."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.infer.batch.run import Settings, run
from sam_audio_jax.infer.buckets import BucketConfig
from sam_audio_jax.infer.manifest import read_manifest
from sam_audio_jax.infer.options import SeparateOptions

RATE = 8_000
SETTINGS = Settings(checkpoint="x", options=SeparateOptions(seed=1))


def write_recording(path: pathlib.Path, seconds: float, seed: int) -> None:
    wave = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    audio.write_wav(path, wave[None], RATE)


def stems(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of all waves in a folder of results."""
    return {file.name: file.read_bytes() for file in folder.glob("*.wav")}


def ids(file: pathlib.Path) -> list[str]:
    """The ids in a file of the ledger, sorted."""
    return sorted(json.loads(line)["id"] for line in file.read_text().splitlines())


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> pathlib.Path:
    """A folder with `items.jsonl`; every third recording takes 1.01 s, the others 0.6 s."""
    folder = tmp_path_factory.mktemp("recordings")
    lines = []
    for number in range(9):
        write_recording(folder / f"{number}.wav", 0.6 if number % 3 else 1.01, number)
        lines.append({"id": f"item{number}", "audio": f"{number}.wav", "text": "dog"})
    lines[1]["spans"] = [["+", 0.1, 0.5]]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def items(recordings, tmp_path) -> pathlib.Path:
    """A copy of the manifest, which a test may change."""
    return pathlib.Path(shutil.copytree(recordings, tmp_path / "items")) / "items.jsonl"


@pytest.fixture
def paired(model, monkeypatch) -> SAMAudio:
    """The model, solving two items at once: the manifest is five groups of three shapes."""
    monkeypatch.setattr(model.pipeline, "buckets", BucketConfig(batch=2))
    return model


@pytest.fixture(scope="session")
def whole(model, recordings, tmp_path_factory) -> pathlib.Path:
    """The results of one process that nothing interrupts; tests only read them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.pipeline, "buckets", BucketConfig(batch=2))
        assert run(model, read_manifest(recordings / "items.jsonl"), out, SETTINGS) == {}
    return out
