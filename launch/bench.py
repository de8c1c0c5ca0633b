"""`sam-audio bench` from a clone: `python launch/bench.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["bench", *sys.argv[1:]])
