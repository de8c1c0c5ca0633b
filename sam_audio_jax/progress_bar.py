"""Progress of long work on stderr: a bar on a terminal, elsewhere whole lines and few of them."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm

SECONDS = 15.0  # between two lines of a log


class _Lines:
    """What a bar would draw over itself, as lines: logs of clusters are read and paid by line."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.encoding = stream.encoding  # decides whether the bar may be of blocks

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm.tqdm:
    """A `tqdm.tqdm` with these options, which counts the items of `iterable` if there is one."""
    if not sys.stderr.isatty():
        # A bar within another one would move the cursor to a place of its own.
        lines = {"file": _Lines(sys.stderr), "position": 0}
        options = lines | {"mininterval": SECONDS, "maxinterval": SECONDS} | options
    return tqdm.tqdm(iterable, **options)
