"""`sam-audio prepare` from a clone: `python launch/prepare.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["prepare", *sys.argv[1:]])
