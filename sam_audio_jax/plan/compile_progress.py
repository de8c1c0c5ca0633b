"""What a plan is doing, on stderr: lines at start and end, and the time between them on a terminal.

The compiler works for minutes in one call, so a thread counts the seconds.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from sam_audio_jax.train.config import TrainConfig

TICK_S = 1.0


@contextlib.contextmanager
def working(
    what: str, expected_s: float, stream: Any = None, tick_s: float = TICK_S
) -> Iterator[None]:
    """Prints `what` with the time that it should take, and when it is done the time that it took.

    On a terminal a line below shows the elapsed time meanwhile.
    """
    stream = sys.stderr if stream is None else stream
    start = time.monotonic()
    print(f"{what}: about {duration(expected_s)} on two cores", file=stream, flush=True)
    done = threading.Event()

    def count() -> None:
        while not done.wait(tick_s):
            elapsed = duration(time.monotonic() - start)
            print(
                f"\r  {elapsed} of about {duration(expected_s)} ", end="", file=stream, flush=True
            )

    thread = threading.Thread(target=count, daemon=True) if stream.isatty() else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread:
            thread.join()
            print("\r\x1b[K", end="", file=stream)
    print(f"  took {duration(time.monotonic() - start)}", file=stream, flush=True)


def duration(seconds: float) -> str:
    """Minutes and seconds, as `2:05 min`, or `40 s`."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d} min" if whole >= 60 else f"{whole} s"


# CPU seconds of the compiler on a training step by the transformer's width (the depth is in loops
# and counts little), and on large's sampler.
_WIDTHS = (1536, 2816)
_TRAIN_STEP_S = (51.0, 58.0)
_SAMPLER_S = 370.0
_SCORER_S = 30.0  # of one program of a scorer
_THOROUGH = 6.0  # times


def train_step_s(config: TrainConfig, thorough: bool) -> float:
    """Seconds that the compilation of a training step may take, by what was measured."""
    seconds = float(np.interp(config.separator.dit.width, _WIDTHS, _TRAIN_STEP_S))
    return seconds * (_THOROUGH if thorough else 1.0)


def sampler_s(thorough: bool) -> float:
    """The same of a sampler."""
    return _SAMPLER_S * (_THOROUGH if thorough else 1.0)


def scorer_s(thorough: bool) -> float:
    """The same of one program of a scorer."""
    return _SCORER_S * (_THOROUGH if thorough else 1.0)
