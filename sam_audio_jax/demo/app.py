"""The HTTP interface of the page, documented in docs/demo.md, "Requests"."""

import asyncio
import contextlib
import functools
import io
import json
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sam_audio_jax import audio
from sam_audio_jax.demo import job_request, uploads
from sam_audio_jax.demo.example import make_example
from sam_audio_jax.demo.guard import Guard
from sam_audio_jax.demo.jobs import Job, Queue
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.demo.separating import Separating
from sam_audio_jax.demo.store import SOURCE, BusyError, Store, Upload
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import place_error
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.video.frames import stream_at

PAGE = pathlib.Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
CLOSING_S = 20.0  # waited at most for a separation that runs when the server ends
SWEEP_S = 60.0  # between two looks for recordings that are too old
FRAME_SIDE = 960  # pixels of a frame that the page shows

Answer = Callable[[Request], Awaitable[Response]]


def make_app(model: SAMAudio, name: str, *, host: str = "127.0.0.1", limits: Limits) -> Starlette:
    """The page for one model, which is called `name`; `host` is what the server listens on.

    While it runs there is a temporary folder with everything that visitors brought.
    """
    demo = Demo(model, name, limits)
    route = functools.partial(Route, methods=["GET"])
    routes = [
        Route("/api/recordings", _answered(demo.upload), methods=["POST"]),
        Route("/api/example", _answered(demo.example), methods=["POST"]),
        Route("/api/recordings/{id}", _answered(demo.drop), methods=["DELETE"]),
        route("/api/recordings/{id}/mixture.wav", _answered(demo.mixture)),
        route("/api/recordings/{id}/drawing", _answered(demo.drawing)),
        route("/api/recordings/{id}/frame.jpg", _answered(demo.frame)),
        Route("/api/jobs", _answered(demo.add), methods=["POST"]),
        route("/api/jobs/{id}", _answered(demo.job)),
        Route("/api/jobs/{id}", _answered(demo.cancel), methods=["DELETE"]),
        route("/api/jobs/{id}/stems/{number:int}.wav", _answered(demo.stem)),
        route("/api/jobs/{id}/stems/{number:int}/drawing", _answered(demo.stem_drawing)),
        route("/api/model", _answered(demo.model_facts)),
        *(route(path, _page(file)) for path, file in _files().items()),
    ]
    return Starlette(
        routes=routes,
        lifespan=demo.lifespan,
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )


def _files() -> dict[str, pathlib.Path]:
    """The files of the page by the paths under which they are served; no other is reached."""
    files = {f"/{file.name}": file for file in PAGE.iterdir() if file.suffix in TYPES}
    return {"/": PAGE / "index.html", **files}


def _page(file: pathlib.Path) -> Answer:
    async def answer(request: Request) -> Response:
        del request
        return Response(file.read_bytes(), media_type=TYPES[file.suffix])

    return answer


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        "Not Found": "there is nothing under this address",
        "Method Not Allowed": f"{request.method} is not allowed here",
    }
    text = words.get(error.detail, error.detail)
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _server_error(request: Request, error: Exception) -> Response:
    del request, error  # the server's log has its traceback
    return _error(500, "the page has an error: its log says more")


def _answered(answer: Answer) -> Answer:
    """Turns what a visitor can change into a sentence and a status."""

    @functools.wraps(answer)
    async def with_errors(request: Request) -> Response:
        try:
            return await answer(request)
        except uploads.TooLargeError as error:
            await uploads.drop(request.stream())
            return _error(413, str(error))
        except uploads.StalledError as error:
            return _error(408, str(error))
        except BusyError as error:
            return _error(503, str(error))
        except UserError as error:
            return _error(422, str(error))
        except ClientDisconnect:
            return _error(400, "the sender is gone")
        except OSError as error:
            if not place_error(error):
                raise
            return _error(507, "the disk takes nothing more: try again later")

    return with_errors


class Demo:
    """What the routes share: the store, the queue, one decoder at a time."""

    def __init__(self, model: SAMAudio, name: str, limits: Limits):
        self.name, self.limits = name, limits
        self.separating = Separating(model)
        self.sample_rate = model.sample_rate

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Makes the temporary folder and the queue; ends the one and removes the other."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sam-audio-demo-"))
        self.store = Store(folder, self.limits)
        self.queue = Queue(self.separating, self.limits)
        self.store.dropped = self.queue.forget
        app.state.store, app.state.queue = self.store, self.queue
        self.decoder, self.places = asyncio.Lock(), asyncio.Semaphore(self.limits.uploading)
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            await run_in_threadpool(self.queue.close, CLOSING_S)
            shutil.rmtree(folder, ignore_errors=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await run_in_threadpool(self.store.sweep)

    async def model_facts(self, request: Request) -> Response:
        """What the page says about the model and its limits."""
        del request
        limits = self.limits
        facts = {
            "name": self.name,
            "sample_rate": self.sample_rate,
            "why_no_video": self.separating.why_no_video(),
            "max_mb": limits.max_mb,
            "max_minutes": limits.max_minutes,
            "prompts": limits.prompts,
            "kept_minutes": limits.kept_s / 60,
        }
        return JSONResponse(facts)

    async def upload(self, request: Request) -> Response:
        """Takes a recording: the body is the file, `?name=` what to call it."""
        uploads.check_declared(request.headers.get("content-length"), self.limits)
        async with self.places:
            upload = self.store.new(uploads.shown_name(request.query_params.get("name")))
            try:
                path = upload.folder / f"{SOURCE}{uploads.own_suffix(upload.name)}"
                await uploads.receive(request.stream(), path, self.limits)
                async with self.decoder:
                    await run_in_threadpool(self._read, upload, path)
            except BaseException:
                shutil.rmtree(upload.folder, ignore_errors=True)
                raise
        return JSONResponse(upload.facts(), 201)

    def _read(self, upload: Upload, path: pathlib.Path) -> None:
        recording = uploads.load(path, upload.name, self.limits)
        if uploads.has_video(path):
            upload.video = path
        else:
            path.unlink()
        self._keep(upload, recording)

    def _keep(self, upload: Upload, recording: audio.Audio) -> None:
        upload.keep(recording)
        self.store.add(upload)

    async def example(self, request: Request) -> Response:
        """Takes a recording of our own, with prompts that fit it."""
        del request
        async with self.decoder:
            found = await run_in_threadpool(make_example)
            upload = self.store.new(found.name)
            await run_in_threadpool(self._keep, upload, found.recording)
        facts = upload.facts() | {"text": found.text, "spans": found.spans}
        return JSONResponse(facts, 201)

    def _upload_of(self, request: Request) -> Upload:
        upload = self.store.find(request.path_params["id"])
        if upload is None:
            raise HTTPException(404, "this recording is gone: upload it again")
        return upload

    async def drop(self, request: Request) -> Response:
        """Removes a recording with all that was made of it."""
        await run_in_threadpool(self.store.drop, self._upload_of(request))
        return Response(status_code=204)

    async def mixture(self, request: Request) -> Response:
        """The decoded recording."""
        upload = self._upload_of(request)
        return FileResponse(upload.mixture, media_type="audio/wav")

    async def drawing(self, request: Request) -> Response:
        """The bytes of the recording's drawing."""
        drawing = self._upload_of(request).drawing
        return Response(drawing.data if drawing else b"", media_type="application/octet-stream")

    async def frame(self, request: Request) -> Response:
        """The frame at `?time=` seconds of a video."""
        upload = self._upload_of(request)
        if upload.video is None:
            raise UserError(f"{upload.name} has no picture")
        try:
            second = float(request.query_params.get("time", "0"))
        except ValueError:
            second = float("nan")
        if not 0 <= second <= upload.seconds:
            raise UserError(f"time must be in seconds from 0 to {upload.seconds:.2f}")
        async with self.decoder:
            data = await run_in_threadpool(_frame, upload.video, second, upload.name)
        return Response(data, media_type="image/jpeg")

    async def add(self, request: Request) -> Response:
        """Queues a separation."""
        body = await self._json(request)
        upload = self.store.find(str(body.get("recording")))
        if upload is None:
            raise HTTPException(404, "this recording is gone: upload it again")
        parsed = job_request.parse(body, upload.seconds, upload.name, self.limits)
        if parsed.box is not None:
            if upload.video is None:
                raise UserError(f"{upload.name} has no picture to draw a box on")
            if reason := self.separating.why_no_video():
                raise UserError(reason)
        job = self.queue.add(upload, parsed)
        return JSONResponse(self._facts(job), 202)

    async def _json(self, request: Request) -> dict[str, Any]:
        """The body of a request, which is small. Raises UserError for what is no JSON object."""
        data, most = bytearray(), self.limits.request_bytes
        try:
            async with asyncio.timeout(self.limits.idle_s):
                async for piece in request.stream():
                    data += piece
                    if len(data) > most:
                        raise uploads.TooLargeError(
                            f"the request is too large: {most} bytes are allowed"
                        )
        except TimeoutError:
            raise uploads.StalledError("the request did not arrive: try again") from None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise UserError("the body must be a JSON object")
        return body

    def _job_of(self, request: Request) -> Job:
        job = self.queue.find(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "this separation is gone: start it again")
        return job

    async def job(self, request: Request) -> Response:
        """How far a separation is."""
        return JSONResponse(self._facts(self._job_of(request)))

    def _facts(self, job: Job) -> dict[str, Any]:
        return job.facts(self.queue.ahead_of(job))

    async def cancel(self, request: Request) -> Response:
        """Cancels a separation."""
        job = self._job_of(request)
        self.queue.cancel(job)
        return JSONResponse(self._facts(job))

    def _stem_of(self, request: Request) -> Any:
        stems, number = self._job_of(request).stems, request.path_params["number"]
        if number >= len(stems):
            raise HTTPException(404)
        return stems[number]

    async def stem(self, request: Request) -> Response:
        """A stem as a file to download."""
        stem = self._stem_of(request)
        return FileResponse(stem.path, media_type="audio/wav", filename=stem.download)

    async def stem_drawing(self, request: Request) -> Response:
        """The bytes of a stem's drawing."""
        return FileResponse(self._stem_of(request).drawing, media_type="application/octet-stream")


def _frame(path: pathlib.Path, second: float, name: str) -> bytes:
    """The frame of a video that is nearest to a time, as JPEG."""
    (frames,) = stream_at(path, np.array([second]), name=f"the video of {name}")
    picture = Image.fromarray(np.ascontiguousarray(frames[0]))
    picture.thumbnail((FRAME_SIDE, FRAME_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()
