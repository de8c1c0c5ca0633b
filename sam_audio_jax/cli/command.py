"""What the commands share: how an error looks, the exit status, numbers with a lower limit."""

import argparse
import functools
import io
import sys
from collections.abc import Callable, Sequence

import jax

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import place_error

INTERRUPTED = 130  # the exit status of shells for a program that Ctrl-C ended


def command(body: Callable[[list[str]], int | None]) -> Callable[[Sequence[str]], int]:
    """Turns a function that may raise `UserError` into `main(argv)`, which returns an exit status.

    A `UserError` becomes one line on stderr and status 2, and so does an error of the place that
    something is written to, as a full disk; Ctrl-C becomes one line and status 130; None becomes 0.
    A process of a run of several ends at once after an error, so that the others notice
    (`distributed.run_main`).
    """

    def run(argv: list[str]) -> int:
        try:
            return body(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Exception as error:
            if not (reason := place_error(error)):
                raise
            print(f"error: cannot write: {reason}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            if jax.distributed.is_initialized():  # `run_main` says so, for all processes alike
                raise
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    @functools.wraps(body)
    def main(argv: Sequence[str]) -> int:
        for stream in (sys.stdout, sys.stderr):  # names of files need not be in their encoding
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
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
