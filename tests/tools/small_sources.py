"""Recordings with pictures: a red disc that hums and a blue square that whistles."""

import pathlib

import numpy as np
import soundfile
from PIL import Image, ImageDraw

from sam_audio_jax.files import write_jsonl

RATE = 8_000
RED, BLUE = (220, 30, 30, 255), (30, 30, 220, 255)
OBJECTS = {"fan humming": (RED, 200.0), "kettle whistling": (BLUE, 1_500.0)}


def write(folder: pathlib.Path) -> pathlib.Path:
    """Writes a manifest of one training and one validation recording of each object."""
    lines = []
    for name, (colour, hertz) in OBJECTS.items():
        picture = Image.new("RGBA", (40, 40))
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if colour == RED else draw.rectangle)((4, 4, 35, 35), fill=colour)
        picture.save(folder / f"{name}.png")
        for split, seconds in (("train", 1.0), ("valid", 0.7)):
            time = np.arange(int(seconds * RATE)) / RATE
            path = f"{name} {split}.wav"
            soundfile.write(folder / path, 0.2 * np.sin(2 * np.pi * hertz * time), RATE)
            lines.append(
                {
                    "id": path,
                    "path": path,
                    "caption": name,
                    "category": "sfx",
                    "source_id": path,
                    "duration": seconds,
                    "license": "CC0-1.0",
                    "split": split,
                    "image": f"{name}.png" if split == "train" else None,
                }
            )
    write_jsonl(folder / "manifest.jsonl", lines)
    return folder
