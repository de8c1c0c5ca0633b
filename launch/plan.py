"""`sam-audio plan` from a clone: `python launch/plan.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["plan", *sys.argv[1:]])
