"""Recordings that visitors brought: files under random names, dropped after a time or a count.

A name is hard to guess and stands for the right to use what is under it. Nothing lists the names.
"""

import dataclasses
import pathlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from sam_audio_jax import audio
from sam_audio_jax.demo.drawing import Drawing, draw
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import to_mono

MIXTURE, SOURCE = "mixture.wav", "source"


class BusyError(UserError):
    """Too much waits already: recordings, or separations of them."""


@dataclasses.dataclass(kw_only=True)
class Upload:
    """One recording of a visitor, and where it is kept."""

    id: str
    name: str  # of the sender's file; shown, never a path
    folder: pathlib.Path
    seconds: float = 0.0
    channels: int = 0
    sample_rate: int = 0
    notes: tuple[str, ...] = ()
    video: pathlib.Path | None = None
    drawing: Drawing | None = None
    used: float = dataclasses.field(default_factory=time.monotonic)
    pins: int = 0  # jobs that still need it

    @property
    def mixture(self) -> pathlib.Path:
        """The decoded recording, as the page plays it."""
        return self.folder / MIXTURE

    def read(self) -> audio.Audio:
        """The decoded recording, sample for sample as it was read from the upload."""
        stored = audio.load(self.mixture)
        return audio.Audio(stored.samples, stored.sample_rate, self.notes)

    def keep(self, recording: audio.Audio) -> None:
        """Writes the decoded recording and its drawing."""
        samples, rate = recording.samples, recording.sample_rate
        audio.write_wav(self.mixture, samples, rate)
        mono, _, noted = to_mono(recording, self.name)
        self.drawing = draw(mono, rate)
        self.seconds, self.channels, self.sample_rate = samples.shape[-1] / rate, len(samples), rate
        self.notes = noted.notes

    def facts(self) -> dict[str, Any]:
        """What the page is to know."""
        assert self.drawing is not None  # it was kept before anybody has its name
        return {
            "id": self.id,
            "name": self.name,
            "seconds": self.seconds,
            "channels": self.channels,
            "sample_rate": self.sample_rate,
            "notes": list(self.notes),
            "has_video": self.video is not None,
            "drawing": self.drawing.facts(),
        }


class Store:
    """The recordings by name. Its methods may be called from any thread."""

    def __init__(self, folder: pathlib.Path, limits: Limits):
        self.folder, self.limits = folder, limits
        self.dropped: Callable[[Upload], None] = lambda upload: None  # called with each
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.RLock()

    def new(self, name: str) -> Upload:
        """A recording with an empty folder, which `add` makes known."""
        upload = Upload(id=secrets.token_urlsafe(16), name=name, folder=self.folder)
        upload.folder = self.folder / upload.id
        upload.folder.mkdir()
        return upload

    def add(self, upload: Upload) -> None:
        """Makes a recording known; drops others, if there are too many.

        Raises BusyError, and removes its files, where jobs need all the others.
        """
        with self._lock:
            busy = sum(one.pins > 0 for one in self._uploads.values())
            if busy < self.limits.kept:
                upload.used = time.monotonic()  # not when its upload began: the others were in use
                self._uploads[upload.id] = upload
        if busy >= self.limits.kept:
            shutil.rmtree(upload.folder, ignore_errors=True)
            raise BusyError(f"{busy} recordings wait to be separated already: try again in a while")
        self.sweep()

    def find(self, key: str) -> Upload | None:
        """The recording of that `id`, which is thereby used."""
        with self._lock:
            upload = self._uploads.get(key)
            if upload is not None:
                upload.used = time.monotonic()
            return upload

    def drop(self, upload: Upload) -> None:
        """Forgets a recording and removes its files."""
        with self._lock:
            known = self._uploads.pop(upload.id, None)
        shutil.rmtree(upload.folder, ignore_errors=True)
        if known is not None:
            self.dropped(upload)

    def sweep(self) -> None:
        """Drops what is too old or too much, the longest unused first; none that a job needs."""
        with self._lock:
            now = time.monotonic()
            idle = sorted((one for one in self._uploads.values() if not one.pins), key=_last_use)
            excess = len(self._uploads) - self.limits.kept
            old = [one for one in idle if now - one.used > self.limits.kept_s]
            leaving = {one.id: one for one in [*idle[: max(0, excess)], *old]}
        for upload in leaving.values():
            self.drop(upload)


def _last_use(upload: Upload) -> float:
    return upload.used
