"""Run by test_memory.py: the peak of one separation, in a process of its own.

Not a test file: peak memory is one number for the life of a process. Arguments: a model folder, the
dtype in which it is kept, seconds of sound. Prints the peak in bytes.
"""

import pathlib
import re
import sys

import numpy as np

from sam_audio_jax import SAMAudio


def main(folder: str, dtype: str, seconds: str) -> None:
    model = SAMAudio.from_pretrained(folder, dtype=dtype)
    size = round(float(seconds) * model.sample_rate)
    wave = 0.1 * np.random.default_rng(0).standard_normal(size, np.float32)
    stems = model.separate(
        wave, text="dog barking", sample_rate=model.sample_rate, method="euler", steps=2
    )
    assert np.isfinite(stems.target).all()
    status = pathlib.Path("/proc/self/status").read_text()
    print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
