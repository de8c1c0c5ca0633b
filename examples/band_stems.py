"""Divides a band's recording into stems that add up to it.

    python examples/band_stems.py song.flac --stems drums "bass guitar" voice --out stems

Writes one file for each stem and `rest.wav`, what no text took, all at the recording's rate and
with its channels, and prints how the energy is divided. It is what `sam-audio separate song.flac
--stems drums,bass,voice --rest --out stems` does, with the model in your own program.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.output import file_names


def divide(model: SAMAudio, song: str, texts: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """The stems `[channels, samples]` by text, with "rest", and their rate.

    The recording is read and encoded once, and the texts are solved as one batch. Raises
    `UserError` for a text "rest", whose stem would have the name of what is left.
    """
    if "rest" in texts:
        raise UserError('--stems "rest" is the name of what no text takes: use another text')
    stems = model.separate(song, text=list(texts), rest=True)
    assert stems.rest is not None
    return {text: one.target for text, one in stems.items()} | {"rest": stems.rest}, (
        stems.sample_rate
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the stems; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("song", help="a sound file")
    parser.add_argument("--stems", nargs="+", required=True, metavar="TEXT", help="one text each")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the stems")
    parser.add_argument("--checkpoint", default="tiny", help="any model that separate takes")
    arguments = parser.parse_args(argv)
    try:
        model = SAMAudio.from_pretrained(arguments.checkpoint)
        waves, rate = divide(model, arguments.song, arguments.stems)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    energy = {text: float(np.square(wave).sum()) for text, wave in waves.items()}
    whole = sum(energy.values()) or 1.0
    for name, (text, wave) in zip(file_names(list(waves)), waves.items(), strict=True):
        audio.write_wav(arguments.out / f"{name}.wav", wave, rate)
        print(f"{text:<20} {energy[text] / whole:5.1%}  {arguments.out / name}.wav")
    return 0


if __name__ == "__main__":
    sys.exit(main())
