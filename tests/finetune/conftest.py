"""Short recordings, made here."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

RATE = 8_000


def sound(seed: int, seconds: float = 1.5) -> np.ndarray:
    """A tone that swells and fades, of a pitch and a noise of its own."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * rng.uniform(60, 300) * time) * np.sin(np.pi * time / seconds)
    return (0.4 * tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(autouse=True)
def waves_in_tmp_path(tmp_path_factory, monkeypatch):
    """Decoded waves are kept below the folder of this test run."""
    monkeypatch.setenv("SAM_AUDIO_CACHE", str(tmp_path_factory.getbasetemp() / "waves"))


@pytest.fixture
def write(tmp_path) -> Callable[..., pathlib.Path]:
    """`write("dog/1.wav", seed)` makes a recording in the folder `sounds`, which it returns."""

    def make(name: str, seed: int = 0, seconds: float = 1.5, rate: int = RATE) -> pathlib.Path:
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound(seed, seconds), rate)
        return tmp_path / "sounds"

    return make
