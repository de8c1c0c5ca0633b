"""`sam-audio train-judge` from a clone: `python launch/train_judge.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-judge", *sys.argv[1:]]))
