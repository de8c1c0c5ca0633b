"""A client of the page's server, by Python's own HTTP: requests as they are sent on the wire."""

import contextlib
import http.client
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sam_audio_jax.demo.app import make_app
from sam_audio_jax.demo.jobs import Job, Queue
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.demo.serving import Server, listen
from sam_audio_jax.infer.separate import SAMAudio


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a refusal, which is one line."""
        text = self.json["error"]
        assert "\n" not in text
        return text


class Client:
    """Requests to a server on this machine."""

    def __init__(self, port: int, queue: Queue | None, folder: pathlib.Path):
        self.port, self.queue, self.folder = port, queue, folder

    @property
    def jobs(self) -> list[Job]:
        """The server's jobs, in the order in which they came."""
        assert self.queue is not None
        return list(self.queue._jobs.values())

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own; a dict or list is sent as JSON."""
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            fields = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())

    def upload(self, data: Any, name: str = "street.wav") -> dict[str, Any]:
        answer = self.ask("POST", f"/api/recordings?name={name}", data)
        assert answer.status == 201, answer.body
        return answer.json

    def start(self, recording: str, **fields: Any) -> dict[str, Any]:
        answer = self.ask("POST", "/api/jobs", {"recording": recording} | fields)
        assert answer.status == 202, answer.body
        return answer.json

    def finish(self, job: str) -> dict[str, Any]:
        """Waits until a job has ended."""
        until, pause = time.monotonic() + 120, 0.02
        while time.monotonic() < until:
            facts = self.ask("GET", f"/api/jobs/{job}").json
            if facts["state"] not in ("waiting", "running"):
                return facts
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        raise AssertionError(f"it still is {facts}")


@contextlib.contextmanager
def running(model: SAMAudio, limits: Limits) -> Iterator[Client]:
    """A server of the page in a thread of this process."""
    listener = listen("127.0.0.1", 0)
    server = Server(make_app(model, "tiny", limits=limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        state = server.app.state
        yield Client(listener.getsockname()[1], state.queue, state.store.folder)
    finally:
        server.should_exit = True
        thread.join()


class Held:
    """The work of a queue, which waits until it is let go."""

    def __init__(self, client: Client):
        queue = client.queue
        assert queue is not None
        self.go, self.entered = threading.Event(), threading.Event()
        self.queue, self.work = queue, queue._work
        queue._work = self

    def __call__(self, job: Job) -> None:
        self.entered.set()
        assert self.go.wait(60)
        self.work(job)

    def let_go(self) -> None:
        self.go.set()
        self.queue._work = self.work
