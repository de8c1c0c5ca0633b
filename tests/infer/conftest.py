"""One tiny random model for all tests here, saved as a folder that commands can load too."""

import numpy as np
import pytest

from sam_audio_jax import SAMAudio
from tests.tower_model import write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint folder whose prompts all matter."""
    return write_model(tmp_path_factory.mktemp("checkpoint") / "folder")


@pytest.fixture(scope="session")
def model(folder):
    return SAMAudio.from_pretrained(folder)


@pytest.fixture
def noise_of():
    """`seconds -> [samples]` at 8 kHz, on the grid of 16-bit files."""

    def make(seconds: float, seed: int = 0, channels: int | None = None) -> np.ndarray:
        size = round(seconds * 8_000)
        shape = (size,) if channels is None else (channels, size)
        wave = 0.1 * np.random.default_rng(seed).standard_normal(shape)
        return (np.round(wave * 2**15) / 2**15).astype(np.float32)

    return make
