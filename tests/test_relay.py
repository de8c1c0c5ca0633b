"""The relay between a process and the coordination service."""

import ctypes
import queue
import socket
import struct
import subprocess
import sys
import threading

import pytest

from sam_audio_jax.relay import Relay

SOON_S = 0.3  # in which nothing may happen
ECHO = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
while data := connection.recv(100):
    connection.sendall(data)
"""


def connect(relay: Relay) -> socket.socket:
    host, port = relay.address.split(":")
    return socket.create_connection((host, int(port)), 5)


def test_it_keeps_the_client_connected_when_the_service_is_gone():
    lost, hold = queue.Queue(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as service:
        relay = Relay(
            f"127.0.0.1:{service.getsockname()[1]}", lambda: (lost.put(True), hold.wait())
        )
        client = connect(relay)
        far, _ = service.accept()
        far.close()  # without an answer: as if nobody served there yet
        assert client.recv(1) == b""
        client = connect(relay)
        far, _ = service.accept()
        client.sendall(b"ping")
        assert far.recv(4) == b"ping"
        far.sendall(b"pong")
        assert client.recv(4) == b"pong"
        assert lost.empty()
        far.close()
        assert lost.get(timeout=5)
        client.settimeout(SOON_S)
        with pytest.raises(TimeoutError):  # open, and silent
            client.recv(1)
        hold.set()  # this process takes its leave
        client.settimeout(5)
        assert client.recv(1) == b""


def test_answers_reach_a_process_that_waits_for_them_with_pythons_lock_held():
    service = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    relay = Relay(f"127.0.0.1:{int(service.stdout.readline())}", lambda: None)
    client = connect(relay)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    client.settimeout(None)
    client.sendall(b"ping")
    answer = ctypes.create_string_buffer(4)
    received = ctypes.PyDLL(None).recv(client.fileno(), answer, 4, 0)  # lets no other thread run
    assert (received, answer.raw) == (4, b"ping")
    client.close()
    assert service.wait(5) == 0


def test_it_ends_with_its_process():
    program = (
        "from sam_audio_jax.relay import Relay\n"
        "relay = Relay('127.0.0.1:1', lambda: None)\n"
        "print(relay.address, flush=True)\n"
        "input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    owner = subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)
    host, port = owner.stdout.readline().strip().split(":")
    owner.kill()
    assert owner.communicate(timeout=10)[1] == ""  # the relay held this pipe, too
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 5)
