"""Separates what a prompt means from a recording, or many from a manifest.

python launch/separate.py street.wav --text "dog barking" --span + 1.0 2.5 --out out
python launch/separate.py street.mp4 --video street.mp4 --mask dog.mp4 --out out
python launch/separate.py --manifest items.jsonl --out out

One recording leaves target.wav, residual.wav, spectrogram.png and, with a video, the video with the
target as its sound. A manifest (lines with id, audio and any of text, spans, video, mask) leaves
ID.target.wav, ID.residual.wav and done.jsonl, and goes on where it was stopped; items that fail are
listed in failed.jsonl, and the exit status is then 1. Any number of processes may share a manifest,
each with its own --process I --processes N and the same folder; they need not meet.
"""

import sys

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import command


def main(argv: list[str]) -> int:
    try:
        given = command.read_options(argv, __doc__ or "")
        if given.manifest:
            return 0 if command.separate_many(given) else 1
        command.separate_one(given)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
