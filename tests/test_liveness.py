"""Connections between processes: their end is noticed, unless the processes take their leave."""

import contextlib
import queue
import socket
import threading
import types

import pytest

from sam_audio_jax import liveness
from sam_audio_jax.liveness import Liveness

SOON_S = 0.3  # in which nothing may happen


class Store:
    """JAX's store of one run."""

    def __init__(self):
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        self.values[key] = value

    def blocking_key_value_get(self, key: str, timeout_ms: int) -> str:
        return self.values[key]


@pytest.fixture
def run(monkeypatch):
    """Three processes that watch each other, and the losses that each notices."""
    store = Store()
    monkeypatch.setattr(liveness, "jax_library", store)
    monkeypatch.setattr(
        liveness, "Relay", lambda address, lost: types.SimpleNamespace(address=address)
    )
    store.get_distributed_runtime_client = lambda address, index: store
    losses = [queue.Queue() for _ in range(3)]
    processes = []
    for index, lost in enumerate(losses):
        process = Liveness(lost.put)
        with process.relayed():
            liveness.jax_library.get_distributed_runtime_client("127.0.0.1:1", index)
        process.watch()
        processes.append(process)
    while len(processes[0]._watched) < 2:
        threading.Event().wait(0.01)
    return processes, losses


def end(process: Liveness) -> None:
    """Closes the connections of a process that says nothing more, as when it is killed."""
    process._send = lambda message: None
    for connection in process._watched:
        connection.shutdown(socket.SHUT_RDWR)


def test_all_learn_which_process_is_gone(run):
    processes, losses = run
    end(processes[1])
    assert [losses[index].get(timeout=5) for index in (0, 2)] == [1, 1]


def test_the_end_of_process_0_is_noticed_by_all(run):
    processes, losses = run
    end(processes[0])
    assert [losses[index].get(timeout=5) for index in (1, 2)] == [0, 0]


def test_processes_that_take_their_leave_end_in_silence(run):
    processes, losses = run
    for process in processes:
        process.leave()
    for process in processes:
        end(process)
    for lost in losses:
        with pytest.raises(queue.Empty):
            lost.get(timeout=SOON_S)


def test_who_leaves_while_others_work_must_still_wait_for_them(run):
    processes, losses = run
    processes[2].leave()
    end(processes[2])
    assert losses[0].get(timeout=5) == 2


def test_strangers_are_not_processes_of_the_run(run):
    processes, losses = run
    port = int(processes[0]._client.values[liveness.KEY].split()[0])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(1) == b""
    with pytest.raises(queue.Empty):
        losses[0].get(timeout=SOON_S)
