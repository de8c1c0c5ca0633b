"""One run of several processes, one per host: who they are, what they agree on, how they end.

Told by SAM_AUDIO_COORDINATOR (host:port of process 0), SAM_AUDIO_PROCESSES, SAM_AUDIO_PROCESS_ID,
else found by `jax.distributed` itself on Cloud TPU VMs, GKE, SLURM and Open MPI. Without any of
these, and with SAM_AUDIO_PROCESSES=1, there is one process and nothing happens.
"""

import dataclasses
import importlib.util
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_audio_jax.errors import UserError

COORDINATOR, COUNT, INDEX = (
    f"SAM_AUDIO_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS_ID")
)
START_TIMEOUT = "SAM_AUDIO_START_TIMEOUT"  # seconds until every process must be there
PATIENCE_S = 300
LONGEST = 4_000  # bytes of an error that process 0 tells the others
LOST = ("gloo", "connection", "coordination", "unavailable", "heartbeat", "peer", "barrier")


@dataclasses.dataclass(frozen=True)
class ProcessRank:
    """Which of how many processes this one is."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise UserError(
                f"process {self.index} of {self.count}: they are numbered from 0 to count - 1"
            )


def initialize() -> None:
    """Joins the run that the environment tells of; before the first use of JAX's devices.

    Waits up to SAM_AUDIO_START_TIMEOUT seconds (300) for the other processes and then ends this
    one with a line on stderr and status 1. UserError: settings that are partial or contradict.
    """
    told = read_environment(os.environ)
    if jax.distributed.is_initialized():
        return
    patience = _number(os.environ, START_TIMEOUT, PATIENCE_S)
    if told is None and not _cluster(os.environ):
        return
    # JAX aborts with a stack trace when it has waited long enough; this comes before.
    late = threading.Timer(patience, _too_late, [told, patience])
    late.daemon = True
    late.start()
    wait = patience + 60
    try:
        if told is None:
            jax.distributed.initialize(initialization_timeout=wait)
        elif told.count > 1:
            jax.distributed.initialize(
                os.environ[COORDINATOR], told.count, told.index, initialization_timeout=wait
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"cannot join the other processes: {_first_line(error)}; set {COORDINATOR}, {COUNT} "
            f"and {INDEX}, or {COUNT}=1 to work alone"
        ) from None
    finally:
        late.cancel()


def read_environment(environ: Mapping[str, str]) -> ProcessRank | None:
    """The place that the SAM_AUDIO_ variables give this process; None if they are not set."""
    given = [name for name in (COORDINATOR, COUNT, INDEX) if environ.get(name)]
    if not given:
        return None
    count, index = _number(environ, COUNT, 0), _number(environ, INDEX, 0)
    if given == [COUNT] and count == 1:
        return ProcessRank()
    missing = [name for name in (COORDINATOR, COUNT, INDEX) if name not in given]
    if missing:
        raise UserError(f"{' and '.join(given)} without {' and '.join(missing)}: set all or none")
    host, _, port = environ[COORDINATOR].rpartition(":")
    if not (host and port.isdigit()):
        raise UserError(f"{COORDINATOR}={environ[COORDINATOR]!r} must be host:port of process 0")
    try:
        return ProcessRank(index, count)
    except UserError as error:
        raise UserError(f"{INDEX} and {COUNT}: {error}") from None


def rank_from_environment(environ: Mapping[str, str]) -> ProcessRank:
    """The place of a process that works without the others; no coordinator is needed.

    From the SAM_AUDIO_ variables, SLURM, Open MPI or GKE, in this order.
    """
    for count, index in (
        (COUNT, INDEX),
        ("SLURM_NTASKS", "SLURM_PROCID"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ):
        if environ.get(count) and environ.get(index):
            return ProcessRank(_number(environ, index, 0), _number(environ, count, 1))
    if environ.get(INDEX):
        raise UserError(f"{INDEX} without {COUNT}: set both or none")
    hosts = len(_tpu_hosts(environ))
    if not hosts:
        return ProcessRank()
    slices = _number(environ, "MEGASCALE_NUM_SLICES", 1)
    before = _number(environ, "MEGASCALE_SLICE_ID", 0) * hosts
    return ProcessRank(before + _number(environ, "TPU_WORKER_ID", 0), slices * hosts)


def _cluster(environ: Mapping[str, str]) -> bool:
    """Whether `jax.distributed` will find more than this process, or has to look."""
    if environ.get("JAX_COORDINATOR_ADDRESS"):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is not read here; set {COORDINATOR} instead")
    if _number(environ, "SLURM_NTASKS", 1) > 1 and "SLURM_STEP_NODELIST" in environ:
        return True
    if _number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environ:  # since Open MPI 5
            raise UserError(
                f"this Open MPI names no coordinator: set {COORDINATOR}, "
                f"{COUNT}=$OMPI_COMM_WORLD_SIZE and {INDEX}=$OMPI_COMM_WORLD_RANK"
            )
        return True
    if len(_tpu_hosts(environ)) > 1 or environ.get("MEGASCALE_NUM_SLICES"):
        return True
    return _on_tpu_vm(environ)


def _tpu_hosts(environ: Mapping[str, str]) -> list[str]:
    """As GKE lists them; elsewhere libtpu may have left a warning there."""
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "")
    return [] if "WARNING" in hosts else [host for host in hosts.split(",") if host]


def _on_tpu_vm(environ: Mapping[str, str]) -> bool:
    """Chips and their library are here: the metadata of the machine tell how many hosts."""
    wanted = environ.get("JAX_PLATFORMS", "tpu").split(",")
    chips = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0")
    return chips and "tpu" in wanted and importlib.util.find_spec("libtpu") is not None


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit():
        raise UserError(f"{name}={text!r} must be a whole number")
    return int(text)


def _too_late(place: ProcessRank | None, patience: int) -> None:
    who = "this process" if place is None else f"process {place.index} of {place.count}"
    _tell(
        f"error: {who} waited {patience} s for the others to start; start them all, or give them "
        f"more time by {START_TIMEOUT}"
    )
    os._exit(1)


def run_on_first(action: Callable[[], object]) -> None:
    """Process 0 does it while the others wait; its `UserError` is raised by all."""
    said = ""
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            if jax.process_count() == 1:
                raise
            said = str(error)
    if jax.process_count() == 1:
        return
    text = np.zeros(LONGEST, np.int32)
    letters = said.encode()[:LONGEST]
    text[: len(letters)] = list(letters)
    heard = bytes(multihost_utils.broadcast_one_to_all(text).astype(np.uint8)).rstrip(b"\0")
    if heard:
        raise UserError(heard.decode(errors="replace"))


def broadcast_bool(answer: bool) -> bool:
    """Process 0's answer on every process: clocks differ, decisions must not."""
    return bool(broadcast_from_first([float(answer)])[0])


def broadcast_from_first(numbers: list[float]) -> list[float]:
    """Process 0's numbers on every process; all give as many."""
    if jax.process_count() == 1:
        return numbers
    bits = np.asarray(numbers, np.float64).view(np.int32)  # x64 is off: doubles would be cut
    return multihost_utils.broadcast_one_to_all(bits).view(np.float64).tolist()


def all_processes(answer: bool) -> bool:
    """Whether every process says yes."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.asarray(answer)).all())


def run_main(main: Callable[[list[str]], int], argv: list[str]) -> int:
    """The exit status of `main(argv)`, a command that may be one of several processes.

    After an error such a process ends at once, without the goodbye for which JAX waits for the
    others; they notice that it is gone and end with one line and status 1.
    """
    try:
        status = main(argv)
    except (Exception, KeyboardInterrupt) as error:
        if not jax.distributed.is_initialized():
            raise
        _tell(_last_words(error))
        status = 1
    if status and jax.distributed.is_initialized():
        for child in multiprocessing.active_children():
            child.terminate()
        sys.stdout.flush()
        os._exit(status)
    return status


def _last_words(error: BaseException) -> str:
    said = _first_line(error)
    if isinstance(error, KeyboardInterrupt):
        return "error: interrupted"
    if isinstance(error, jax.errors.JaxRuntimeError) and any(x in said.lower() for x in LOST):
        return (
            f"error: process {jax.process_index()} lost the others ({said}); one of them ended: "
            "see what it said, and start all of them again to go on from the last checkpoint"
        )
    return "".join(traceback.format_exception(error)).rstrip()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
