"""Passes the connections of one process to the coordination service of a run.

    python relay.py HOST PORT

It is a process of its own: some of JAX's functions hold Python's global lock while they wait for an
answer of the service (`reached_sync_point` is one of them, as of jaxlib 0.10), so that threads of
the process that waits could not pass that answer on. It imports nothing but the standard library,
starts in 30 ms, prints its port and then a line when the service is gone, and ends with the process
whose pipe is its standard input.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

CHUNK = 65_536  # bytes passed on at once
LOST = "lost"  # the line that says that the service is gone
# A host that is switched off closes nothing: it is gone after 10 + 6 * 5 s without an answer.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}


class Relay:
    """Passes connections to `address` (host:port) on; its own is `address` afterwards.

    `lost` is called, in a thread, when the service ends a connection on which it has answered.
    One on which it has not is closed: nobody serves there yet, and the client tries again.
    """

    def __init__(self, address: str, lost: Callable[[], object]):
        host, _, port = address.rpartition(":")
        self._lost = lost
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, host.strip("[]"), port],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal is for the process that it serves
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError("the relay to the coordination service did not start")
        self.address = f"127.0.0.1:{int(line)}"
        in_background(self._wait)

    def _wait(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.readline()  # that the service is gone; its end: the relay itself is
        self._lost()
        self._process.stdin.close()  # ends the relay, and with it the client's connections


def keep_alive(connection: socket.socket) -> None:
    """The system finds out by itself whether the host at the other end is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def in_background(function: Callable[..., object], *arguments: object) -> None:
    """Calls the function in a thread that does not keep the process from ending."""
    threading.Thread(target=function, args=arguments, daemon=True, name="liveness").start()


def main(host: str, port: str) -> None:
    """Passes connections on until the standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    in_background(_accept, server, (host, int(port)))
    sys.stdin.read()
    os._exit(0)


def _accept(server: socket.socket, remote: tuple[str, int]) -> None:
    while True:
        near, _ = server.accept()
        in_background(_connect, near, remote)


def _connect(near: socket.socket, remote: tuple[str, int]) -> None:
    try:
        far = socket.create_connection(remote)
    except OSError:
        near.close()
        return
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(far)
    ended = threading.Event()  # the near side
    in_background(_send, near, far, ended)
    answered = _pass_on(far, near)
    if answered and not ended.is_set():
        # The near side stays open, so that JAX's client does not notice and abort.
        print(LOST, flush=True)
        return
    for end in (near, far):
        with contextlib.suppress(OSError):  # a close alone would wait for a `recv` in `_send`
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _send(near: socket.socket, far: socket.socket, ended: threading.Event) -> None:
    _pass_on(near, far)
    ended.set()
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_WR)


def _pass_on(source: socket.socket, target: socket.socket) -> bool:
    """Passes bytes on until one side ends; returns whether there were any."""
    any_bytes = False
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            any_bytes = True
            target.sendall(data)
    return any_bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
