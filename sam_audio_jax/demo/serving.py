"""The server's process: a socket, Starlette's application in uvicorn, an orderly end."""

import shutil
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from sam_audio_jax.demo.app import make_app
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.separate import SAMAudio

GRACE_S = 3  # in which open connections may end
CONNECTIONS = 200  # at the same time; others get status 503


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; raises UserError where there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host} port {port}: {reason}") from None
    return listener


def address(listener: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = map(str, listener.getsockname()[:2])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """The server of an application, which calls `ready` once it answers."""

    def __init__(self, app: Starlette):
        self.app = app
        self.ready: Callable[[], None] = lambda: None
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=30,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        if self.started:
            self.ready()


def serve(
    model: SAMAudio, name: str, listener: socket.socket, host: str, limits: Limits, *, browse: bool
) -> None:
    """Serves the page until a signal ends it; `browse` opens it in the browser."""
    server = Server(make_app(model, name, host=host, limits=limits))
    where = address(listener)

    def ready() -> None:
        print(f"the page is at {where} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if browse:
            threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()

    server.ready = ready
    signal.signal(signal.SIGHUP, server.handle_exit)  # of a terminal that is closed
    try:
        server.run(sockets=[listener])
    finally:  # a second Ctrl-C skips the orderly end
        if store := getattr(server.app.state, "store", None):
            shutil.rmtree(store.folder, ignore_errors=True)
