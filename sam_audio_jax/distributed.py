"""Runs of several processes, one per host: their start, broadcasts from process 0, their end.

Which process this one is comes from the SAM_AUDIO_ variables of `process_rank`, without these from
`jax.distributed`, which knows Cloud TPU VMs, GKE, SLURM and Open MPI.
"""

import atexit
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.liveness import Liveness
from sam_audio_jax.process_rank import (
    COORDINATOR,
    COUNT,
    INDEX,
    ProcessRank,
    in_cluster,
    read_environment,
    whole_number,
)

START_TIMEOUT = "SAM_AUDIO_START_TIMEOUT"  # seconds until every process must have started
DEFAULT_START_TIMEOUT_S = 300
GRACE_S = 3.0  # for an error of this process itself, once another one is gone
NOTICE_S = 1.0  # until it shows that an error has its cause in the loss of another process
MAX_ERROR_BYTES = 4_000  # of an error that process 0 broadcasts
LOST_PROCESS_WORDS = ("gloo", "coordination", "heartbeat")  # of JAX's errors after a loss


def initialize() -> None:
    """Joins the run that the environment names; to be called before JAX's devices are used.

    Waits up to SAM_AUDIO_START_TIMEOUT seconds (300) for the other processes and then ends this
    one with a line on stderr and status 1. Raises `UserError` for settings that are partial or
    contradict each other.
    """
    rank = read_environment(os.environ)
    if jax.distributed.is_initialized():
        return
    timeout = whole_number(os.environ, START_TIMEOUT, DEFAULT_START_TIMEOUT_S)
    if rank is None and not in_cluster(os.environ):
        return
    # JAX aborts with a stack trace at its own timeout; ours comes first.
    timer = threading.Timer(timeout, _exit_after_timeout, [rank, timeout])
    timer.daemon = True
    timer.start()
    jax_timeout = timeout + 60
    try:
        with _liveness.relayed():
            if rank is None:
                jax.distributed.initialize(initialization_timeout=jax_timeout)
            elif rank.count > 1:
                jax.distributed.initialize(
                    os.environ[COORDINATOR],
                    rank.count,
                    rank.index,
                    initialization_timeout=jax_timeout,
                )
        if jax.distributed.is_initialized():
            _liveness.watch()
            atexit.register(_liveness.leave)  # runs before JAX, which came first, leaves the others
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"cannot join the other processes: {first_line(error)}; set {COORDINATOR}, {COUNT} "
            f"and {INDEX}, or {COUNT}=1 to work alone"
        ) from None
    finally:
        timer.cancel()


def _exit_after_timeout(rank: ProcessRank | None, timeout: int) -> None:
    name = "this process" if rank is None else f"process {rank.index} of {rank.count}"
    _print_error(
        f"error: {name} waited {timeout} s for the others to start; start them all, or give them "
        f"more time by {START_TIMEOUT}"
    )
    os._exit(1)


def run_on_first(action: Callable[[], object]) -> None:
    """Runs `action` on process 0 while the others wait. All processes raise its `UserError`."""
    message = ""
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            if jax.process_count() == 1:
                raise
            message = str(error)
    if jax.process_count() == 1:
        return
    sent = np.zeros(MAX_ERROR_BYTES, np.int32)
    encoded = message.encode()[:MAX_ERROR_BYTES]
    sent[: len(encoded)] = list(encoded)
    received = multihost_utils.broadcast_one_to_all(sent).astype(np.uint8)
    message = bytes(received).rstrip(b"\0").decode(errors="replace")
    if message:
        raise UserError(message)


def broadcast_bool(answer: bool) -> bool:
    """The answer of process 0, on every process."""
    return bool(broadcast_from_first([float(answer)])[0])


def broadcast_from_first(numbers: list[float]) -> list[float]:
    """The numbers of process 0, on every process; each process passes the same count."""
    if jax.process_count() == 1:
        return numbers
    bits = np.asarray(numbers, np.float64).view(np.int32)  # x64 is off: doubles would be cut
    return multihost_utils.broadcast_one_to_all(bits).view(np.float64).tolist()


def all_processes(answer: bool) -> bool:
    """Whether the answer is True on every process."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.asarray(answer)).all())


def run_main(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """The exit status of `main(argv)`, a command that may be one of several processes.

    After an error such a process ends at once, skipping JAX's shutdown barrier, which would wait
    for the others; they notice that it is gone and end with one line on stderr and status 1.
    """
    try:
        status = main(argv)
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized():
            raise
        end_process(1, _error_text(error))
    if status and jax.distributed.is_initialized():
        end_process(status)
    return status


_ending = threading.Lock()  # held by the thread that ends this process
_gone: list[int] = []  # processes
_loss = threading.Event()  # of one of them


def end_process(status: int, text: str = "") -> NoReturn:
    """Ends this process and its workers after the line or lines of `text`.

    Of several threads that find a reason, the first one gives it.
    """
    _ending.acquire()
    if text:
        _print_error(text)
    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_after_loss(index: int) -> None:
    """Ends this process because another one is gone, unless it ends by an error of its own."""
    _gone.append(index)
    _loss.set()
    time.sleep(GRACE_S)
    end_process(
        1, "\n" + _loss_text(f"process {index} is gone")
    )  # a line that shows progress may be open


_liveness = Liveness(_end_after_loss)


def _error_text(error: BaseException) -> str:
    """One line for an interrupt or the loss of another process, else the traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "error: interrupted"
    # What JAX and other libraries raise then is of many kinds, and may come before the loss shows.
    if _loss.wait(NOTICE_S):
        return _loss_text(f"process {_gone[0]} is gone")
    text = first_line(error)
    if any(word in text.lower() for word in LOST_PROCESS_WORDS):
        return _loss_text(text)
    return "".join(traceback.format_exception(error)).rstrip()


def _loss_text(reason: str) -> str:
    return (
        f"error: process {_liveness.index} lost the others ({reason}): see its own error, and "
        "start all of them again to go on from the last checkpoint"
    )


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
