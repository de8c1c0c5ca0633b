"""Lines of metrics.jsonl, for comparisons of runs."""

from collections.abc import Iterable
from typing import Any

TIMES = ("seconds_", "input_share")


def untimed(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without what depends on the clock."""
    return [{k: v for k, v in line.items() if not k.startswith(TIMES)} for line in lines]
