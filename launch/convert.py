"""`sam-audio convert` from a clone: `python launch/convert.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["convert", *sys.argv[1:]])
