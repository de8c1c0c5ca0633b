"""`sam-audio scaling` from a clone: `python launch/scaling.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["scaling", *sys.argv[1:]])
