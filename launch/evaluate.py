"""`sam-audio evaluate` from a clone: `python launch/evaluate.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
