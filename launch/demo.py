"""`sam-audio demo` from a clone: `python launch/demo.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["demo", *sys.argv[1:]])
