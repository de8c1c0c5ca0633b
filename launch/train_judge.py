"""`sam-audio train-judge` from a clone: `python launch/train_judge.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["train-judge", *sys.argv[1:]])
