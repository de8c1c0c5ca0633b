"""`sam-audio separate` from a clone: `python launch/separate.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["separate", *sys.argv[1:]]))
