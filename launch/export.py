"""`sam-audio export` from a clone: `python launch/export.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["export", *sys.argv[1:]])
