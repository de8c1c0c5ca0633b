"""`sam-audio train-codec` from a clone: `python launch/train_codec.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["train-codec", *sys.argv[1:]])
