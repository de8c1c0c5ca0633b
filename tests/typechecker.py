"""The type checker of the annotations of arrays while tests run (pyproject.toml)."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def of_modules(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks a function of a module or a class, and leaves alone one within another function.

    That would be compiled anew each time the outer one runs: reading a manifest of a thousand lines
    took ten seconds.
    """
    return function if "<locals>" in function.__qualname__ else beartype(function)
