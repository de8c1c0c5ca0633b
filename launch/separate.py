"""`sam-audio separate` from a clone: `python launch/separate.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["separate", *sys.argv[1:]])
