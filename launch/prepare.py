"""`sam-audio prepare` from a clone: `python launch/prepare.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
