"""Writes an evaluation: results.json, report.html and the sounds to listen to."""

import dataclasses
import json
import pathlib
from typing import Any

from sam_audio_jax.eval.solve import Sound, Wave


@dataclasses.dataclass(frozen=True)
class Scene:
    """One item to listen to: what went in, what should come out and what came out."""

    sound: Sound
    prompt: str
    sisdri: float  # of the refined target, in dB
    raw: tuple[Wave, Wave]
    refined: tuple[Wave, Wave]


def write(
    folder: pathlib.Path,
    results: dict[str, Any],
    scenes: list[Scene],
    sample_rate: int,
    workdir: str | pathlib.Path | None,
) -> None:
    """Fills an existing, empty folder."""
    (folder / "results.json").write_text(json.dumps(results, indent=1))
