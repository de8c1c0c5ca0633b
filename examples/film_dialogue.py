"""Gives a film a sound track of its dialogue, alone or above a quieter background.

    python examples/film_dialogue.py film.mp4 --out dialogue.mp4
    python examples/film_dialogue.py film.mp4 --out clearer.mp4 --background-db -12

The pictures are copied as they are. Films of any length are separated in windows, in the memory of
a few waves of their length and one window. A film with several sound tracks: --track 2.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from sam_audio_jax import SAMAudio, audio
from sam_audio_jax.errors import UserError
from sam_audio_jax.video.muxing import mux


def dialogue(
    model: SAMAudio, film: str, *, text: str, track: int | None, background_db: float | None
) -> tuple[np.ndarray, int]:
    """The new sound, `[channels, samples]`, and its rate, which is the film's."""
    # "wiener" divides the film's own sound: nothing is invented, and all of it is in one part.
    stems = model.separate(film, text=text, track=track, refine="wiener")
    sound = stems.target
    if background_db is not None:
        sound = sound + 10 ** (background_db / 20) * stems.residual
    if len(sound) > 2:  # the new track is mono or stereo; of 5.1 it is the mix of the channels
        sound = audio.mono(sound, audio.mixing_weights(sound, stems.sample_rate))[None]
    return sound.astype(np.float32), stems.sample_rate


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the film with its new sound; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("film", help="a video file with sound")
    parser.add_argument("--out", required=True, help="the new film: .mp4, .mov, .webm, .mkv")
    parser.add_argument("--text", default="speech", help="what to keep")
    parser.add_argument("--background-db", type=float, help="keep the rest, so much quieter")
    parser.add_argument("--track", type=int, help="of several audio tracks")
    parser.add_argument("--checkpoint", default="tiny", help="any model that separate takes")
    arguments = parser.parse_args(argv)
    try:
        sound, rate = dialogue(
            SAMAudio.from_pretrained(arguments.checkpoint),
            arguments.film,
            text=arguments.text,
            track=arguments.track,
            background_db=arguments.background_db,
        )
        mux(arguments.film, sound, rate, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
