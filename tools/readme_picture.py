"""Draws the picture of the README: a fixed mixture, separated by the shipped model.

    python tools/readme_picture.py [ID] [--out docs/images/separation.png]

The mixture is one of the embedded bench (`sam_audio_jax/data/embedded/mixtures.jsonl`), whose
recordings no training has used. Prompts are its caption and its spans.
"""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image

from sam_audio_jax import SAMAudio
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.infer.picture import spectrograms_png

ITEM = "sfx-000"
COLOURS = 64  # of the picture's palette: a quarter of the bytes of full colour
WIDTH = 880  # pixels


def draw(name: str) -> bytes:
    """Returns a PNG of the mixture `name` and of what `tiny` makes of it."""
    bench = load_bench("embedded")
    item = next(item for item in bench.mixtures if item.id == name)
    rendered = render(bench, item)
    spans = [("+", start, end) for start, end in item.spans]
    stems = SAMAudio.from_pretrained("tiny").separate(
        rendered.mixture,
        text=item.caption,
        spans=spans,
        sample_rate=rendered.sample_rate,
        refine="wiener",
    )
    waves = {
        "mixture": rendered.mixture,
        f"target: {item.caption}": np.ravel(stems.target),
        "residual: everything else": np.ravel(stems.residual),
    }
    full = Image.open(io.BytesIO(spectrograms_png(waves, rendered.sample_rate, spans=spans)))
    height = round(full.height * WIDTH / full.width)
    small = full.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.quantize(COLOURS).save(file, "png", optimize=True)
    return file.getvalue()


def main() -> None:
    """Writes the picture of the item that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("item", nargs="?", default=ITEM)
    parser.add_argument("--out", type=pathlib.Path, default="docs/images/separation.png")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(draw(arguments.item))


if __name__ == "__main__":
    main()
