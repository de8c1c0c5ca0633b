"""`sam-audio label` from a clone: `python launch/label.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["label", *sys.argv[1:]])
