"""`sam-audio label` from a clone: `python launch/label.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["label", *sys.argv[1:]]))
