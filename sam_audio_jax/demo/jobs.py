"""The queue: many may wait, one thread separates. A job is asked for its state by its name."""

import collections
import dataclasses
import pathlib
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

from sam_audio_jax.demo.job_request import JobRequest
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.demo.store import BusyError, Upload
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import place_error

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")


class CancelledError(Exception):
    """Raised in the worker's thread between two stages of a job that was cancelled."""


@dataclasses.dataclass(frozen=True)
class StemFile:
    """One stem on disk: what the page shows of it and what it is called when it is downloaded."""

    label: str
    kind: str  # target, residual or rest
    prompt: int | None  # which of the job's prompts it belongs to
    path: pathlib.Path
    download: str
    drawing: pathlib.Path
    shape: dict[str, Any]  # of the drawing
    sample_rate: int

    def facts(self) -> dict[str, Any]:
        """What the page is to know."""
        names = {"label": self.label, "kind": self.kind, "prompt": self.prompt}
        return names | {"sample_rate": self.sample_rate, "drawing": self.shape}


@dataclasses.dataclass(kw_only=True)
class Job:
    """One separation that a visitor asked for."""

    id: str
    upload: Upload
    request: JobRequest
    state: JobState = "waiting"
    stage: str = ""  # what is done at the moment, in words
    started: float | None = None
    ended: float | None = None
    expected_s: float | None = None  # how long it will run, by those before it; None: not known
    error: str = ""
    notes: tuple[str, ...] = ()
    stems: tuple[StemFile, ...] = ()
    cancel: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def folder(self) -> pathlib.Path:
        """Where its stems are."""
        return self.upload.folder / self.id

    def facts(self, ahead: int) -> dict[str, Any]:
        """What the page is to know; `ahead` separations come before this one."""
        elapsed = None
        if self.started is not None:
            elapsed = (self.ended or time.monotonic()) - self.started
        return {
            "id": self.id,
            "state": self.state,
            "ahead": ahead,
            "stage": self.stage,
            "elapsed_s": elapsed,
            "expected_s": self.expected_s,
            "error": self.error,
            "notes": list(self.notes),
            "stems": [stem.facts() for stem in self.stems] if self.state == "done" else [],
        }

    def enter(self, stage: str) -> None:
        """Says what comes next; raises CancelledError if it is not to come."""
        if self.cancel.is_set():
            raise CancelledError
        self.stage = stage


class Queue:
    """The jobs, and the thread that separates them one after the other.

    `work(job)` does all of it and calls `job.enter` between its stages.
    """

    def __init__(self, work: Callable[[Job], None], limits: Limits):
        self._work, self.limits = work, limits
        self._jobs: dict[str, Job] = {}  # in the order in which they came
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition(threading.RLock())
        self._current: Job | None = None  # in the thread; it may be cancelled already
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="separations", daemon=True)
        self._thread.start()

    def add(self, upload: Upload, request: JobRequest) -> Job:
        """Queues a job; raises BusyError if too many wait already."""
        with self._changed:
            if len(self._waiting) >= self.limits.waiting:
                raise BusyError(
                    f"{len(self._waiting)} separations wait already: try again in a while"
                )
            job = Job(id=secrets.token_urlsafe(16), upload=upload, request=request)
            upload.pins += 1
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget_old()
            self._changed.notify_all()
            return job

    def find(self, key: str) -> Job | None:
        """The job of that `id`; its recording is thereby used."""
        with self._changed:
            job = self._jobs.get(key)
            if job is not None:
                job.upload.used = time.monotonic()
            return job

    def ahead_of(self, job: Job) -> int:
        """How many separations come before a waiting one, the running one among them."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._current is not None)

    def cancel(self, job: Job) -> None:
        """Ends a job: at once where it waits, else after the stage in which it is."""
        with self._changed:
            if job.state in ENDED:
                return
            job.cancel.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")
            else:
                job.state = "cancelled"  # what its stage still brings is dropped

    def forget(self, upload: Upload) -> None:
        """Drops the jobs of a recording that is gone."""
        with self._changed:
            for job in [job for job in self._jobs.values() if job.upload is upload]:
                self.cancel(job)
                self._jobs.pop(job.id, None)

    def close(self, seconds: float) -> None:
        """Cancels everything and waits so long at most for the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                self.cancel(job)
            self._changed.notify_all()
        self._thread.join(seconds)

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.state in ENDED and job.ended]
        for job in ended[: max(0, len(self._jobs) - self.limits.kept_jobs)]:
            self._jobs.pop(job.id)
            for file in job.folder.glob("*"):
                file.unlink(missing_ok=True)

    def _end(self, job: Job, state: JobState) -> None:
        job.state, job.ended = state, time.monotonic()
        job.upload.pins -= 1

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._current = self._waiting.popleft()
                job.state, job.started = "running", time.monotonic()
            state = self._outcome(job)
            with self._changed:
                self._current = None
                self._end(job, "cancelled" if job.cancel.is_set() else state)

    def _outcome(self, job: Job) -> JobState:
        try:
            self._work(job)
        except CancelledError:
            return "cancelled"
        except UserError as error:
            job.error = str(error)
        except MemoryError:
            job.error = "the memory is too small for this recording: try a shorter one"
        except Exception as error:
            job.error = f"the separation failed: {_reason(error)}"
            if not job.cancel.is_set():
                traceback.print_exc(file=sys.stderr)
        else:
            return "done"
        return "failed"


def _reason(error: Exception) -> str:
    """What an error of the program or the machine says, without a path of this machine."""
    if place_error(error):
        return "the disk takes nothing more"
    return (
        f"{type(error).__name__}: {first_line(error)}"
        if not isinstance(error, OSError)
        else (error.strerror or type(error).__name__)
    )
