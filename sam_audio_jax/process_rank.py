"""Which of several processes this one is.

SAM_AUDIO_COORDINATOR (host:port of process 0), SAM_AUDIO_PROCESSES and SAM_AUDIO_PROCESS_ID say so,
else the variables of SLURM, Open MPI and GKE, else the metadata of a Cloud TPU slice, by the keys
that JAX reads (github.com/jax-ml/jax, jax/_src/clusters/cloud_tpu_cluster.py). Elsewhere, and with
SAM_AUDIO_PROCESSES=1, there is one process.
"""

import dataclasses
import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Mapping

from sam_audio_jax.errors import UserError

COORDINATOR, COUNT, INDEX = (
    f"SAM_AUDIO_{name}" for name in ("COORDINATOR", "PROCESSES", "PROCESS_ID")
)
INTERACTIVE_STEP = str(2**32 - 6)  # SLURM_STEP_ID in the shell of `salloc`
METADATA_TIMEOUT_S = 10.0
METADATA_TRIES = 3


@dataclasses.dataclass(frozen=True)
class ProcessRank:
    """Index of this process among the `count` processes of a run."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise UserError(
                f"process {self.index} of {self.count}: they are numbered from 0 to count - 1"
            )


def read_environment(environ: Mapping[str, str]) -> ProcessRank | None:
    """The rank in the SAM_AUDIO_ variables; None if none of them is set.

    Raises `UserError` when only some are set or their values contradict each other.
    """
    present = [name for name in (COORDINATOR, COUNT, INDEX) if environ.get(name)]
    if not present:
        return None
    count, index = whole_number(environ, COUNT, 0), whole_number(environ, INDEX, 0)
    if present == [COUNT] and count == 1:
        return ProcessRank()
    missing = [name for name in (COORDINATOR, COUNT, INDEX) if name not in present]
    if missing:
        raise UserError(f"{' and '.join(present)} without {' and '.join(missing)}: set all or none")
    host, _, port = environ[COORDINATOR].rpartition(":")
    if not (host and port.isdigit()):
        raise UserError(f"{COORDINATOR}={environ[COORDINATOR]!r} must be host:port of process 0")
    try:
        return ProcessRank(index, count)
    except UserError as error:
        raise UserError(f"{INDEX} and {COUNT}: {error}") from None


def rank_from_environment(environ: Mapping[str, str]) -> ProcessRank:
    """The rank of a process that works without the others, so that no coordinator is needed.

    It comes from the SAM_AUDIO_ variables, SLURM, Open MPI, GKE or a Cloud TPU slice, in this
    order. Raises UserError for a process of several that does not know which of them it is.
    """
    if environ.get(INDEX) and not environ.get(COUNT):
        raise UserError(f"{INDEX} without {COUNT}: set both or none")
    pairs = [(COUNT, INDEX), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")]
    if _in_slurm_step(environ):
        pairs.insert(1, (_slurm_count(environ), "SLURM_PROCID"))
    for count, index in pairs:
        if environ.get(count):
            _require(environ, index, f"{count}={environ[count]}", whole_number(environ, count, 1))
            return ProcessRank(whole_number(environ, index, 0), whole_number(environ, count, 1))
    values = environ if _tpu_hosts(environ) else _slice_variables(environ)
    hosts = len(_tpu_hosts(values))
    if not hosts:
        return ProcessRank()
    slices = whole_number(values, "MEGASCALE_NUM_SLICES", 1)
    _require(values, "TPU_WORKER_ID", f"{hosts} hosts in TPU_WORKER_HOSTNAMES", hosts)
    _require(values, "MEGASCALE_SLICE_ID", f"MEGASCALE_NUM_SLICES={slices}", slices)
    before = whole_number(values, "MEGASCALE_SLICE_ID", 0) * hosts
    return ProcessRank(before + whole_number(values, "TPU_WORKER_ID", 0), slices * hosts)


def in_cluster(environ: Mapping[str, str]) -> bool:
    """Whether `jax.distributed` may find other processes."""
    if environ.get("JAX_COORDINATOR_ADDRESS"):
        raise UserError(f"JAX_COORDINATOR_ADDRESS is not read here; set {COORDINATOR} instead")
    if _in_slurm_step(environ) and whole_number(environ, _slurm_count(environ), 1) > 1:
        return True
    if whole_number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environ:  # since Open MPI 5
            raise UserError(
                f"this Open MPI names no coordinator: set {COORDINATOR}, "
                f"{COUNT}=$OMPI_COMM_WORLD_SIZE and {INDEX}=$OMPI_COMM_WORLD_RANK"
            )
        return True
    if len(_tpu_hosts(environ)) > 1 or environ.get("MEGASCALE_NUM_SLICES"):
        return True
    return _has_chips() and "tpu" in environ.get("JAX_PLATFORMS", "tpu").split(",")


def whole_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """The number in a variable. Raises UserError if it is none."""
    text = environ.get(name) or str(default)
    if not text.isdigit():
        raise UserError(f"{name}={text!r} must be a whole number")
    return int(text)


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process; a batch script and the shell of `salloc`, which is a
    step of its own, have the job's number of tasks, too, but are alone.
    """
    interactive = environ.get("SLURM_STEP_ID") == INTERACTIVE_STEP
    return "SLURM_STEP_NODELIST" in environ and not interactive


def _slurm_count(environ: Mapping[str, str]) -> str:
    """The variable with the number of tasks of this step; SLURM_NTASKS may be that of the job."""
    return "SLURM_STEP_NUM_TASKS" if environ.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"


def _require(environ: Mapping[str, str], index: str, what: str, count: int) -> None:
    """Raises UserError if one of several processes does not know which of them it is."""
    if count > 1 and not environ.get(index):
        raise UserError(f"{what} without {index}: set it, or {COUNT}=1 to work alone")


def _tpu_hosts(environ: Mapping[str, str]) -> list[str]:
    """The hosts that GKE lists; elsewhere libtpu may have left a warning in the variable."""
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "")
    return [] if "WARNING" in hosts else [host for host in hosts.split(",") if host]


def _has_chips() -> bool:
    """Whether chips and libtpu are here; the metadata of the machine then list the hosts."""
    chips = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0")
    return chips and importlib.util.find_spec("libtpu") is not None


def _slice_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """GKE's variables for a host of a Cloud TPU slice without GKE; none on other machines.

    Raises UserError if the machine has metadata that cannot be read.
    """
    if not _has_chips() or environ.get("TPU_SKIP_MDS_QUERY"):
        return {}
    server = environ.get("GCE_METADATA_IP", "metadata.google.internal")
    worker = _metadata(server, "agent-worker-number")
    if worker is None:
        return {}
    hosts = _metadata(server, "worker-network-endpoints")
    if not hosts:
        raise _unknown_host("worker-network-endpoints is missing")
    variables = {"TPU_WORKER_ID": worker.strip()}
    for line in (_metadata(server, "tpu-env") or "").splitlines():
        name, _, value = line.partition(":")  # MEGASCALE_NUM_SLICES: '2'
        if name.strip() in ("MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
            variables[name.strip()] = value.strip().strip("'")
    variables |= {name: environ[name] for name in variables if environ.get(name)}
    return variables | {"TPU_WORKER_HOSTNAMES": hosts.strip()}


def _metadata(server: str, key: str) -> str | None:
    """An attribute of this machine; None if it has none of the name, or no metadata at all."""
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{key}",
        headers={"Metadata-Flavor": "Google"},
    )
    problem: Exception | None = None
    for _ in range(METADATA_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=METADATA_TIMEOUT_S) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.NOT_FOUND:
                return None
            problem = error
        except urllib.error.URLError as error:
            if not isinstance(error.reason, TimeoutError):
                return None  # no such server: a machine elsewhere
            problem = error
        except (OSError, http.client.HTTPException) as error:
            problem = error
    raise _unknown_host(f"{key}: {problem}")


def _unknown_host(reason: str) -> UserError:
    return UserError(
        f"the metadata of this machine do not say which host of its TPU slice it is ({reason}); "
        f"set {COUNT} and {INDEX}, or {COUNT}=1 to work alone"
    )
