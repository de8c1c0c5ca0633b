"""`sam-audio finetune` from a clone: `python launch/finetune.py --help`."""

import sys

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run(["finetune", *sys.argv[1:]])
