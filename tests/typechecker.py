"""The type checker of the annotations of arrays while tests run (pyproject.toml)."""

import functools
from collections.abc import Callable
from typing import Any

from beartype import beartype


def of_modules(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks a function of a module or a class, and leaves alone one within another function.

    That would be compiled anew each time the outer one runs: reading a manifest of a thousand lines
    took ten seconds. The check is compiled at the first call, as most functions are never called
    in one process of the tests: all of them together take half of a worker's start.
    """
    if "<locals>" in function.__qualname__:
        return function
    checked: Callable[..., Any] | None = None

    @functools.wraps(function)
    def check(*args: Any, **keywords: Any) -> Any:
        nonlocal checked
        if checked is None:
            checked = beartype(function)
        return checked(*args, **keywords)

    return check
