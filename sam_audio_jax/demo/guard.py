"""What every request passes: is it meant for this page, and what may the page do.

A page on another site can make a browser send requests to this machine. It cannot choose their
`Host`, unless it owns a name that it points here (DNS rebinding), nor their `Origin`.
"""

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADERS = {
    # Everything from this server alone, nothing inline, nobody may frame the page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
UNSAFE = ("POST", "DELETE")


class Guard:
    """ASGI middleware: refuses requests of other sites, adds the headers of `HEADERS`."""

    def __init__(self, app: App, host: str):
        """`host` is the address that the server listens on; its name is allowed, too."""
        self.app, self.hosts = app, {"localhost", host.casefold(), socket.gethostname().casefold()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        if reason := self.reason_against(scope["method"], headers):
            await _answer(send_guarded, 403, reason)
            return
        await self.app(scope, receive, send_guarded)

    def reason_against(self, method: str, headers: dict[str, str]) -> str:
        """Why a request is refused; "" if it is not."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "this page answers under its own address only"
        origin = headers.get("origin")
        foreign = origin is not None and origin not in (f"http://{host}", f"https://{host}")
        site = headers.get("sec-fetch-site", "none")
        if method in UNSAFE and (foreign or site not in ("none", "same-origin")):
            return "this request comes from another site"
        return ""

    def _is_ours(self, host: str) -> bool:
        """Whether a `Host` is an address, or a name that this machine has."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.casefold().rstrip(".")
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
