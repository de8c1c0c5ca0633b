"""A folder of fixed mixtures."""

import pathlib

import numpy as np
import pytest

from sam_audio_jax import audio
from tests.eval.listing import RATE, event, listed, write_lines


@pytest.fixture
def lines():
    """Three mixtures: of two sounds apart in time, of two all the time, of three."""
    whole = 2 * RATE
    return [
        listed("a", "sfx", "hiss", ["hum"], [event("hiss")], [event("hum", samples=whole)]),
        listed(
            "b",
            "speech",
            "hum",
            ["hiss"],
            [event("hum", samples=whole, gain=0.5)],
            [event("hiss", samples=whole)],
        ),
        listed(
            "c",
            "sfx",
            "beep",
            ["hum", "hiss"],
            [event("beep", samples=RATE // 2, offset=RATE)],
            [event("hum"), event("hiss", start=100, offset=4_000, gain=0.25)],
        ),
    ]


@pytest.fixture
def bench_folder(tmp_path, lines) -> pathlib.Path:
    folder = tmp_path / "bench"
    rng, time = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    waves = {
        "hiss": 0.1 * rng.standard_normal(len(time)),
        "hum": 0.2 * np.sin(2 * np.pi * 110 * time),
        "beep": 0.3 * np.sin(2 * np.pi * 1_700 * time),
    }
    manifest = []
    for name, wave in waves.items():
        audio.write_wav(folder / f"{name}.wav", wave[None], RATE)
        manifest.append(
            {
                "id": name,
                "path": f"{name}.wav",
                "caption": name,
                "category": "sfx",
                "source_id": name,
                "duration": 3.0,
                "license": "CC0-1.0",
                "split": "valid",
            }
        )
    write_lines(folder / "manifest.jsonl", manifest)
    write_lines(folder / "mixtures.jsonl", lines)
    return folder
