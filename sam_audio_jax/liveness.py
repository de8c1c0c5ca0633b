"""The processes of a run notice within seconds that one of them is gone, and say so.

JAX's coordination service runs in process 0. A client that loses it ends its own process at once,
from a thread of its own, with a C++ stack trace and SIGABRT; the loss of another process shows
after 100 s without its heartbeat, in the same way. Two kinds of connections are sooner:

    client of process i -> its relay, a process too -> service in process 0
    watch of process i  <---------------------> watch of process 0

The relay passes bytes on. When process 0 ends, it keeps the client's side open, so that the client
notices nothing. Over its watch a process takes its leave before it ends as it should, and then
waits for all others to do so; a connection that ends before is that of a process which is gone, and
process 0 passes its index on to all.
"""

import contextlib
import secrets
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from jax._src.lib import _jax as jax_library  # pyright: ignore[reportPrivateImportUsage]

from sam_audio_jax.relay import Relay, in_background, keep_alive

CLIENT = "get_distributed_runtime_client"  # the function of JAX that makes a client
KEY = "sam_audio_jax/watch"  # of port and token of process 0's watch, in JAX's store
TOKEN_BYTES = 16  # by which process 0 knows that a connection is of its run
CONNECT_S = 30.0  # until a watch is connected
LEAVE_S = 1.0  # from the end of one connection to the leave that came by another one
MESSAGE = struct.Struct("!i")  # the index of a process, or
LEAVE = -1  # this one ends as it should


class Liveness:
    """The connections of this process. `lost` is called, in a thread, with the index of a process
    that is gone.

    `index` is that of this process, known from the time when JAX makes its client.
    """

    def __init__(self, lost: Callable[[int], object]):
        self.index = 0
        self._lost = lost
        self._leaving = threading.Event()  # this process
        self._first_left = threading.Event()  # process 0
        self._client: Any = None
        self._host = ""  # of process 0
        self._watched: list[socket.socket] = []

    @contextlib.contextmanager
    def relayed(self) -> Iterator[None]:
        """Inside, the client that JAX makes connects through a relay.

        `jax.distributed.initialize` finds the address itself on clusters, so that the one place
        where it can be exchanged is JAX's own function that makes the client (jax 0.10). Where that
        is missing, nothing is relayed, and a loss looks as JAX makes it look.
        """
        make = getattr(jax_library, CLIENT, None)
        if make is None:
            yield
            return

        def connected(address: str, index: int, *arguments: Any, **options: Any) -> Any:
            self.index, self._host = index, address.rpartition(":")[0].strip("[]")
            if index:  # process 0 has the service itself
                relay = Relay(address, self._first_ended)
                address = relay.address
            self._client = make(address, index, *arguments, **options)
            return self._client

        setattr(jax_library, CLIENT, connected)
        try:
            yield
        finally:
            setattr(jax_library, CLIENT, make)

    def watch(self) -> None:
        """Connects with the watch of process 0. All processes call it, once JAX has joined them."""
        if self._client is None:
            return
        if self.index == 0:
            server, token = _listen(), secrets.token_hex(TOKEN_BYTES // 2)
            self._client.key_value_set(KEY, f"{server.getsockname()[1]} {token}")
            in_background(self._watch_all, server, token.encode())
            return
        stored = self._client.blocking_key_value_get(KEY, round(1000 * CONNECT_S))
        port, token = stored.split()
        with contextlib.suppress(OSError):  # closed to us: JAX's heartbeat is left
            first = socket.create_connection((self._host, int(port)), CONNECT_S)
            first.settimeout(None)
            keep_alive(first)
            first.sendall(token.encode() + MESSAGE.pack(self.index))
            self._watched.append(first)
            in_background(self._watch_first, first)

    def leave(self) -> None:
        """This process is about to end, and the connections to others that leave, too."""
        self._leaving.set()
        self._send(LEAVE)

    def _send(self, message: int) -> None:
        for other in list(self._watched):
            with contextlib.suppress(OSError):
                other.sendall(MESSAGE.pack(message))

    def _first_ended(self) -> None:
        """The connection to process 0 has ended."""
        if not (self._leaving.is_set() and self._first_left.wait(LEAVE_S)):
            self._lost(0)

    def _watch_first(self, first: socket.socket) -> None:
        """Watches process 0 in one of the others."""
        while (message := _receive(first)) is not None:
            if message == LEAVE:
                self._first_left.set()
            else:
                self._lost(message)
        self._first_ended()

    def _watch_all(self, server: socket.socket, token: bytes) -> None:
        """Watches all others in process 0, in one thread."""
        ready = selectors.DefaultSelector()
        ready.register(server, selectors.EVENT_READ)
        indices: dict[socket.socket, int] = {}
        left = set()
        while True:
            for key, _ in ready.select():
                other = cast(socket.socket, key.fileobj)
                if other is server:
                    other, _ = server.accept()
                    keep_alive(other)
                    other.settimeout(CONNECT_S)
                    if (index := _greeted(other, token)) is None:  # whoever tries ports
                        other.close()
                        continue
                    indices[other] = index
                    self._watched.append(other)
                    ready.register(other, selectors.EVENT_READ)
                elif _receive(other) == LEAVE:
                    left.add(other)
                else:
                    ready.unregister(other)
                    if not (other in left and self._leaving.is_set()):
                        self._send(indices[other])
                        in_background(self._lost, indices[other])


def _greeted(connection: socket.socket, token: bytes) -> int | None:
    """The index of the process that connects; None for anybody else."""
    with contextlib.suppress(OSError):
        if connection.recv(TOKEN_BYTES, socket.MSG_WAITALL) == token:
            return _receive(connection)
    return None


def _receive(connection: socket.socket) -> int | None:
    """The next message; None at the end of a connection."""
    try:
        data = connection.recv(MESSAGE.size, socket.MSG_WAITALL)
    except OSError:
        return None
    return MESSAGE.unpack(data)[0] if len(data) == MESSAGE.size else None


def _listen() -> socket.socket:
    """A server on every address of this host, at a free port."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))
