"""Which of several processes this one is: variables, and the metadata of a Cloud TPU slice."""

import http.server
import threading

import pytest

from sam_audio_jax import process_rank
from sam_audio_jax.errors import UserError
from sam_audio_jax.process_rank import (
    ProcessRank,
    in_cluster,
    rank_from_environment,
    read_environment,
)


def environment(**values: str) -> dict[str, str]:
    return {f"SAM_AUDIO_{name}": value for name, value in values.items()}


def test_the_environment_gives_the_rank():
    full = environment(COORDINATOR="host:1234", PROCESSES="4", PROCESS_ID="3")
    assert read_environment({}) is None
    assert read_environment(full) == ProcessRank(3, 4)
    assert read_environment(environment(PROCESSES="1")) == ProcessRank(0, 1)
    assert rank_from_environment({}) == ProcessRank(0, 1)
    assert rank_from_environment(environment(PROCESSES="2", PROCESS_ID="1")) == ProcessRank(1, 2)
    slurm = {"SLURM_NTASKS": "3", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "a"}
    assert rank_from_environment(slurm) == ProcessRank(2, 3)
    # The shell of `salloc -n 8`: nobody else works, whichever of the variables shows it.
    shell = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a"}
    for more in ({"SLURM_STEP_ID": "4294967290"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        assert rank_from_environment(shell | more) == ProcessRank(0, 1)
        assert not in_cluster(shell | more | {"JAX_PLATFORMS": "cpu"})
    alone = slurm | {"SAM_AUDIO_PROCESSES": "1"}
    assert rank_from_environment(alone) == ProcessRank(0, 1)
    batch_script = {"SLURM_NTASKS": "3", "SLURM_PROCID": "0"}  # without srun nobody else works
    assert rank_from_environment(batch_script) == ProcessRank(0, 1)
    slices = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}
    assert rank_from_environment(slices) == ProcessRank(1, 2)
    slices |= {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    assert rank_from_environment(slices) == ProcessRank(3, 4)


@pytest.mark.parametrize(
    "values",
    [
        {"SAM_AUDIO_PROCESSES": "4"},
        {"SLURM_NTASKS": "3", "SLURM_STEP_NODELIST": "a"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "2"},
    ],
)
def test_a_process_that_does_not_know_which_it_is_does_nothing(values):
    with pytest.raises(UserError, match=r"without .*: set it, or SAM_AUDIO_PROCESSES=1 to work"):
        rank_from_environment(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PROCESSES": "2"}, "SAM_AUDIO_PROCESSES without SAM_AUDIO_COORDINATOR and SAM_AUDIO_PRO"),
        ({"COORDINATOR": "h:1", "PROCESS_ID": "0"}, "PROCESS_ID without SAM_AUDIO_PROCESSES: set"),
        ({"COORDINATOR": "h", "PROCESSES": "2", "PROCESS_ID": "0"}, "'h' must be host:port"),
        ({"COORDINATOR": "h:1", "PROCESSES": "2", "PROCESS_ID": "2"}, "process 2 of 2: they are"),
        ({"COORDINATOR": "h:1", "PROCESSES": "two", "PROCESS_ID": "0"}, "'two' must be a whole"),
    ],
)
def test_settings_that_contradict_are_the_users_error(values, message):
    with pytest.raises(UserError, match=message):
        read_environment(environment(**values))


class Metadata(http.server.BaseHTTPRequestHandler):
    """A metadata server whose attributes a test sets."""

    attributes: dict[str, str | int]  # a number is a status

    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        answer = self.attributes.get(self.path.removeprefix(PREFIX), 404)
        self.send_response(answer if isinstance(answer, int) else 200)
        self.end_headers()
        if isinstance(answer, str):
            self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


PREFIX = "/computeMetadata/v1/instance/attributes/"
HOSTS = "a:8470:10.0.0.1,b:8470:10.0.0.2"


@pytest.fixture
def slice_host(monkeypatch):
    """Environment of a machine with TPU chips, by the attributes in its metadata."""
    monkeypatch.setattr(process_rank, "_has_chips", lambda: True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(attributes):
        monkeypatch.setattr(Metadata, "attributes", attributes, raising=False)
        return {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}

    yield start
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("hosts", [HOSTS, "a,b"])
def test_a_host_of_a_tpu_slice_learns_from_its_metadata_which_it_is(slice_host, hosts):
    attributes = {"agent-worker-number": "1", "worker-network-endpoints": hosts}
    environ = slice_host(attributes)
    assert rank_from_environment(environ) == ProcessRank(1, 2)
    # libtpu leaves a sentence there.
    warned = environ | {"TPU_WORKER_HOSTNAMES": "WARNING: could not determine"}
    assert rank_from_environment(warned) == ProcessRank(1, 2)
    assert rank_from_environment(environ | {"SAM_AUDIO_PROCESSES": "1"}) == ProcessRank(0, 1)
    assert rank_from_environment(environ | {"TPU_SKIP_MDS_QUERY": "1"}) == ProcessRank(0, 1)


def test_hosts_of_several_slices_are_numbered_through(slice_host):
    slices = "ACCELERATOR_TYPE: 'v5litepod-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'"
    attributes = {"agent-worker-number": "0", "worker-network-endpoints": HOSTS, "tpu-env": slices}
    assert rank_from_environment(slice_host(attributes)) == ProcessRank(2, 4)


def test_a_machine_without_a_slice_works_alone(slice_host):
    assert rank_from_environment(slice_host({})) == ProcessRank(0, 1)
    assert rank_from_environment({"GCE_METADATA_IP": "127.0.0.1:1"}) == ProcessRank(0, 1)


def test_a_host_whose_metadata_cannot_be_read_does_nothing(slice_host):
    with pytest.raises(UserError, match=r"agent-worker-number: .*503.*; set SAM_AUDIO_PROCESSES"):
        rank_from_environment(slice_host({"agent-worker-number": 503}))
    environ = slice_host({"agent-worker-number": "0"})
    with pytest.raises(UserError, match="worker-network-endpoints is missing"):
        rank_from_environment(environ)
