"""What every command has in common: how its errors look and with which status it ends."""

import functools
import sys
from collections.abc import Callable, Sequence

from sam_audio_jax import distributed
from sam_audio_jax.errors import UserError


def command(body: Callable[[list[str]], int | None]) -> Callable[[Sequence[str]], int]:
    """Makes `main(argv)`, which returns an exit status, of a function that may raise `UserError`.

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
