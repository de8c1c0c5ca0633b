"""The command line: `sam-audio NAME ...`, from a clone also `python launch/NAME.py ...`.

Each command is a module of this folder with a function `main(argv)` that returns the exit status.
A module is imported when its command runs, so that `sam-audio --help` does not wait for JAX.
"""

import contextlib
import difflib
import importlib
import importlib.metadata
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

COMMANDS = {
    "separate": "separate what prompts describe from one recording or many",
    "evaluate": "measure a separator on fixed mixtures and write a report",
    "train": "train the separator",
    "train-codec": "train the codec",
    "train-judge": "train a judge of separations on ratings",
    "train-audio-text": "train an audio tower, which compares sounds with texts",
    "finetune": "train a model on own recordings, whole or by an adapter (LoRA)",
    "prepare": "render training mixtures and encode them once, into a cache",
    "label": "separate recordings by their captions into pseudo-labels to train on",
    "convert": "write any model as a folder, for this package or the reference's code",
    "scaling": "run a study of sizes and amounts of data, and forecast from it",
    "demo": "serve a page in the browser to try a model on",
    "export": "write the networks of a model as StableHLO or ONNX, to run without this package",
    "info": "parts of a model, their sizes, and the memory that a separation needs",
    "plan": "compile a training for a TPU slice without TPUs: memory, speed, meshes",
    "bench": "measure the speed of the parts on this machine",
}
AGAIN_S = 0.1  # until an interrupt that was lost comes again
INTERRUPTED = 130  # the exit status of shells for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names and returns its exit status.

    0: done; 1: some items failed or something does not fit, as the command says; 2: an error that
    the caller can fix, in one line on stderr; 130: interrupted by Ctrl-C.
    """
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(help_text())
        return 0
    if name == "--version":
        print(importlib.metadata.version("sam-audio-jax"))
        return 0
    if name not in COMMANDS:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        return 2
    try:
        with _ended_by_interrupt():
            module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        with _kept_interrupts():
            return module.main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` as a process, which ends with its status.

    After an error or Ctrl-C it ends at once: threads that still compute, as those that prefetch,
    crash while the interpreter shuts down in an orderly way.
    """
    status = main(argv)
    if status and "sam_audio_jax.distributed" in sys.modules:
        importlib.import_module("sam_audio_jax.distributed").end_process(status)
    sys.exit(status)


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once.

    For imports, which take seconds: extensions that are being loaded turn a KeyboardInterrupt into
    an ImportError, or lose it.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, _end_interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_interrupted(number: int, frame: types.FrameType | None) -> NoReturn:
    del number, frame
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def _kept_interrupts() -> Iterator[None]:
    """Inside, a KeyboardInterrupt that comes in a finalizer or in a callback of C code comes again.

    Python prints such an exception and goes on.
    """
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def again() -> None:
        # Not at once: it would be raised, and lost, in the hook that calls this.
        main_thread = threading.main_thread().ident or 0
        timer = threading.Timer(AGAIN_S, signal.pthread_kill, [main_thread, signal.SIGINT])
        timer.daemon = True
        timer.start()

    def not_raised(event: Any) -> None:
        if issubclass(event.exc_type, KeyboardInterrupt):
            again()
        else:
            unraisable(event)

    def not_caught(
        kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            again()
        else:
            uncaught(kind, error, trace)

    sys.unraisablehook, sys.excepthook = not_raised, not_caught
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = unraisable, uncaught


def help_text() -> str:
    """One line for each command."""
    lines = [f"  {name:<16} {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sam-audio COMMAND [--help] ...",
            "",
            "SAM Audio in JAX: separate any sound by text, time spans or a masked video.",
            "",
            *lines,
        ]
    )


def _unknown(name: str) -> str:
    """Returns the error about a name that is no command, with the nearest one."""
    known = f"the commands are {', '.join(COMMANDS)}"
    if not name:
        return f"no command given; {known}"
    nearest = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, n=1, cutoff=0.5)
    suggestion = f"did you mean {nearest[0]}? " if nearest else ""
    return f"no command {name!r}; {suggestion}{known}"
