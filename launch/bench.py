"""`sam-audio bench` from a clone: `python launch/bench.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
