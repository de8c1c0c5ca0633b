"""A small world of sound: noises, tones, voices and two songs, made from sines."""

import json

import numpy as np
import pytest
import soundfile

RATE = 8000


def sound(rng: np.random.Generator, seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * rng.uniform(100, 1500) * time) + 0.1 * rng.normal(size=len(time))
    return 0.2 * wave * np.minimum(1, 20 * (time[-1] - time))


def clips() -> list[dict]:
    lines = []
    for number in range(6):
        lines.append({"category": "sfx", "caption": f"thing {number} humming", "duration": 0.7})
        lines.append(
            {
                **{"category": "instrument", "caption": f"horn {number} playing", "duration": 1.5},
                "alt_captions": [f"horn {number}"],
            }
        )
        lines.append(
            {
                **{"category": "speech", "caption": f"woman speaking klingon {number}"},
                **{"alt_captions": ["speech", "woman speaking"], "duration": 2.5},
            }
        )
    for song in ("one", "two"):
        for stem in ("drums", "piano", "harp"):
            lines.append(
                {
                    **{"category": "music", "caption": f"{stem} playing", "duration": 5.0},
                    **{"song": song, "stem": stem, "source_id": f"song {song}"},
                }
            )
    for number, line in enumerate(lines):
        line["id"] = f"clip-{number}"
        line.setdefault("source_id", f"source {number}")
        line |= {"path": f"audio/{number}.wav", "license": "CC0-1.0", "split": "train"}
    return lines


def write_manifest(folder, lines: list[dict]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(autouse=True)
def cache_root(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SAM_AUDIO_CACHE", str(tmp_path_factory.getbasetemp() / "waves"))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> str:
    """Path of a manifest with its sound files and songs."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    lines = clips()
    (folder / "audio").mkdir()
    for line in lines:
        soundfile.write(folder / line["path"], sound(rng, line["duration"]), RATE)
    songs = [
        {
            **{"song": song, "split": "train"},
            "stems": [{"id": line["id"]} for line in lines if line.get("song") == song],
        }
        for song in ("one", "two")
    ]
    (folder / "songs.jsonl").write_text("".join(json.dumps(song) + "\n" for song in songs))
    return write_manifest(folder, lines)
