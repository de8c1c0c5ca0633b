"""`python -m sam_audio_jax.cli NAME ...` is `sam-audio NAME ...`."""

from sam_audio_jax.cli import run

if __name__ == "__main__":
    run()
