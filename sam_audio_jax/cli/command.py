"""What the commands share: how an error looks, the exit status, numbers with a lower limit."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError


def command(body: Callable[[list[str]], int | None]) -> Callable[[Sequence[str]], int]:
    """Turns a function that may raise `UserError` into `main(argv)`, which returns an exit status.

    A `UserError` becomes one line on stderr and status 2; None becomes 0. A process of a run of
    several ends at once after an error, so that the others notice (`distributed.run_main`).
    """

    def run(argv: list[str]) -> int:
        try:
            return body(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    @functools.wraps(body)
    def main(argv: Sequence[str]) -> int:
        return distributed.run_main(run, list(argv))

    return main


def at_least(minimum: int) -> Callable[[str], int]:
    """Returns an argparse type: a whole number that is `minimum` or more."""

    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} must be {minimum} or more")
        return value

    parse.__name__ = "int"  # argparse names the type in its message about other texts
    return parse
