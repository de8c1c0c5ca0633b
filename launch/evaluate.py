"""`sam-audio evaluate` from a clone: `python launch/evaluate.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
