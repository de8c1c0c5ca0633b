"""A small world of sound: effects, instruments, voices and two songs, made from sines."""

import numpy as np
import pytest
import soundfile

from sam_audio_jax.files import write_jsonl

RATE = 8000


def make_sound(rng: np.random.Generator, seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * rng.uniform(100, 1500) * time) + 0.1 * rng.normal(size=len(time))
    return 0.2 * wave * np.minimum(1, 20 * (time[-1] - time))


def make_lines() -> list[dict]:
    """Lines of a manifest: 24 clips, 6 of them the stems of two songs."""
    lines = []
    for number in range(6):
        lines.append({"category": "sfx", "caption": f"thing {number} humming", "duration": 0.7})
        lines.append(
            {
                "category": "instrument",
                "caption": f"horn {number} playing",
                "alt_captions": [f"horn {number}"],
                "duration": 1.5,
            }
        )
        lines.append(
            {
                "category": "speech",
                "caption": f"woman speaking klingon {number}",
                "alt_captions": ["speech", "woman speaking"],
                "duration": 2.5,
            }
        )
    for song in ("one", "two"):
        for stem in ("drums", "piano", "harp"):
            lines.append(
                {
                    "category": "music",
                    "caption": f"{stem} playing",
                    "song": song,
                    "stem": stem,
                    "source_id": f"song {song}",
                    "duration": 5.0,
                }
            )
    for number, line in enumerate(lines):
        line["id"] = f"clip-{number}"
        line.setdefault("source_id", f"source {number}")
        line |= {"path": f"audio/{number}.wav", "license": "CC0-1.0", "split": "train"}
    return lines


def write_manifest(folder, lines: list[dict]) -> str:
    path = folder / "manifest.jsonl"
    write_jsonl(path, lines)
    return str(path)


@pytest.fixture(autouse=True)
def cache_root(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SAM_AUDIO_CACHE", str(tmp_path_factory.getbasetemp() / "waves"))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> str:
    """Path of a manifest with its sound files and songs."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    lines = make_lines()
    (folder / "audio").mkdir()
    for line in lines:
        soundfile.write(folder / line["path"], make_sound(rng, line["duration"]), RATE)
    songs = [
        {
            "song": song,
            "split": "train",
            "stems": [{"id": line["id"]} for line in lines if line.get("song") == song],
        }
        for song in ("one", "two")
    ]
    write_jsonl(folder / "songs.jsonl", songs)
    return write_manifest(folder, lines)
