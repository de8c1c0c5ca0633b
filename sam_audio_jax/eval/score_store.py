"""What an evaluation has measured so far, on disk: it can be shared out, killed and continued.

The folder `OUT.partial` beside the results has `settings.json`, of what is measured, and one file
for each part of the work. A part is a function of the settings alone, so neither the number of
processes nor their order changes a byte of the results.
"""

import contextlib
import json
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.files import (
    locked,
    read_json,
    remove_parts_of,
    whole_file,
    write_json,
    writing_to,
)
from sam_audio_jax.process_rank import ProcessRank

SETTINGS, LOCK = "settings.json", "lock"
SCORES = "scores"  # name of the JSON text among the arrays of a part
Files = Mapping[str, Any]  # name of an item -> JSON that changes with what it reads
_StemWaves = dict[str, tuple[Wave, Wave]]  # of an item: target and residual


class ScoreStore:
    """The parts of one evaluation that are measured."""

    def __init__(
        self,
        out: str | pathlib.Path,
        settings: dict[str, Any],
        *,
        replace: bool,
        files: Mapping[str, Files] | None = None,
    ):
        """Opens the folder; one of something else is replaced, or raises `UserError`.

        `files`: what each part reads, by item, as it is now. A folder with a part that was measured
        from other files is one of something else.
        """
        self.out = pathlib.Path(out)
        self.folder = partial_folder(self.out)
        file, settings = self.folder / SETTINGS, json.loads(json.dumps(settings))
        other = file.is_file() and (
            _read(file) != settings
            or any(self._is_of_others(part, now) for part, now in (files or {}).items())
        )
        if other and replace:
            self.remove()
        elif other:
            raise UserError(
                f"{self.folder} holds an unfinished evaluation of another model or with other "
                "settings or recordings: delete it, or name another folder for the results"
            )
        elif not file.is_file():
            self._remove_parts()
        write_json(file, settings)

    def has(self, part: str) -> bool:
        """Whether a part is measured; one that a power failure has damaged is not."""
        return zipfile.is_zipfile(self.folder / f"{part}.npz")

    def put(
        self, part: str, scores: Any, waves: _StemWaves, files: Files = MappingProxyType({})
    ) -> None:
        """Stores the scores, plain JSON, and the waves of a part, whole or not at all.

        `files` are those of the items that were measured; those of others may change.
        """
        text = json.dumps({"scores": scores, "waves": list(waves), "files": dict(files)})
        pairs = enumerate(waves.values())
        arrays: dict[str, Any] = {str(number): np.stack(pair) for number, pair in pairs}
        arrays[SCORES] = np.asarray(text)
        with whole_file(self.folder / f"{part}.npz") as file, file.open("wb") as opened:
            np.savez(opened, **arrays)

    def _is_of_others(self, part: str, now: Files) -> bool:
        """Whether a part is measured, and not from these files."""
        if not self.has(part):
            return False
        saved = self._content(part)["files"]
        now = json.loads(json.dumps(dict(now)))
        return any(now.get(name) != one for name, one in saved.items())

    def _content(self, part: str) -> dict[str, Any]:
        with np.load(self.folder / f"{part}.npz", allow_pickle=False) as stored:
            return json.loads(str(stored[SCORES]))

    def get(self, part: str) -> tuple[Any, list[str]]:
        """The scores of a part and the names of its waves, which `waves` reads."""
        content = self._content(part)
        return content["scores"], content["waves"]

    def waves(self, part: str, name: str) -> tuple[Wave, Wave]:
        """Target and residual that a part has under a name."""
        with np.load(self.folder / f"{part}.npz", allow_pickle=False) as stored:
            names = json.loads(str(stored[SCORES]))["waves"]
            target, residual = stored[str(names.index(name))]
        return target, residual

    def remove(self) -> None:
        """Removes the folder with all that is measured."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_parts(self) -> None:
        """Removes parts of which no settings say what they are of.

        A process that measures a part while another one writes the results leaves such a part.
        """
        for part in self.folder.glob("*.npz"):
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether this process is the one that writes the results; the folder is then removed.

        A lock decides, which ends with its process: whoever is killed in this, the folder is there
        for the next call.
        """
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context((self.folder / LOCK).open("a"))
            except FileNotFoundError:  # another process has finished
                yield False
                return
            mine = locked(lock) and (self.folder / SETTINGS).is_file()
            if mine:
                remove_parts_of(self.out)
            yield mine
            if mine:
                self.remove()


def partial_folder(out: pathlib.Path) -> pathlib.Path:
    """Where an evaluation keeps what is measured until its results are in `out`."""
    return out.with_name(f"{out.name}.partial")


@contextlib.contextmanager
def measuring_into(out: pathlib.Path, rank: ProcessRank) -> Iterator[None]:
    """A call that measures for the results in `out`, alone or as one of the processes of `rank`.

    Raises `UserError` while a call with which it does not share the work measures for them.
    """
    folder = partial_folder(out)
    try:
        with writing_to(folder, writer=rank.index, writers=rank.count):
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # which is empty after an error before anything was measured


def remove_remains(out: pathlib.Path) -> None:
    """Removes what a process that was killed after it had written its results has left."""
    shutil.rmtree(partial_folder(out), ignore_errors=True)
    remove_parts_of(out)


def _read(file: pathlib.Path) -> Any:
    try:
        return read_json(file)
    except UserError:  # damaged: of no known evaluation
        return None
