"""`sam-audio plan` from a clone: `python launch/plan.py --help`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
