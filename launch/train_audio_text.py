"""`sam-audio train-audio-text` from a clone: `python launch/train_audio_text.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["train-audio-text", *sys.argv[1:]])
