"""`sam-audio info` from a clone: `python launch/info.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["info", *sys.argv[1:]])
