"""`sam-audio train` from a clone: `python launch/train.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
