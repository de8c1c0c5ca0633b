"""Run by test_long_memory.py: separates recordings of two lengths, in a process of its own.

Not a test file: peak memory is one number for the life of a process. Arguments: a model folder,
`none` or `wiener`, seconds of each recording. Prints a JSON list: the bytes by which a second call
of each length raised the peak.
"""

import json
import pathlib
import re
import sys

import numpy as np

from sam_audio_jax import SAMAudio


def memory(kind: str) -> int:
    """Bytes by /proc/self/status: VmRSS now, VmHWM at most since `reset`."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{kind}:\s+(\d+) kB", status)[1])


def main(folder: str, refine: str, *seconds: str) -> None:
    model, rose = SAMAudio.from_pretrained(folder), []
    for length in seconds:
        size = int(length) * model.sample_rate
        wave = np.random.default_rng(0).standard_normal(size, np.float32)
        for _ in range(2):  # the first call compiles for this length
            before = memory("VmRSS")
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            stems = model.separate(
                wave,
                text="dog barking",
                sample_rate=model.sample_rate,
                method="euler",
                steps=1,
                refine=None if refine == "none" else refine,
            )
            peak = memory("VmHWM") - before
            assert np.isfinite(stems.target).all()
            del stems
        rose.append(peak)
    print(json.dumps(rose))


if __name__ == "__main__":
    main(*sys.argv[1:])
