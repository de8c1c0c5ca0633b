"""`python -m sam_audio_jax.cli NAME ...` is `sam-audio NAME ...`."""

import sys

from sam_audio_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
