"""`sam-audio info` from a clone: `python launch/info.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["info", *sys.argv[1:]]))
