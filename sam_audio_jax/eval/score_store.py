"""What an evaluation has measured so far, on disk: it can be shared out, killed and continued.

The folder `OUT.partial` beside the results has `settings.json`, of what is measured, and one file
for each part of the work. A part is a function of the settings alone, so neither the number of
processes nor their order changes a byte of the results.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import Wave
from sam_audio_jax.files import read_json, whole_file, write_json

SCORES = "scores"  # name of the JSON text among the arrays of a part
_StemWaves = dict[str, tuple[Wave, Wave]]  # of an item: target and residual


class ScoreStore:
    """The parts of one evaluation that are measured."""

    def __init__(self, out: str | pathlib.Path, settings: dict[str, Any], *, replace: bool):
        """Opens the folder; one of something else is replaced, or raises `UserError`."""
        out = pathlib.Path(out)
        self.folder = out.with_name(f"{out.name}.partial")
        file, settings = self.folder / "settings.json", json.loads(json.dumps(settings))
        other = file.is_file() and read_json(file) != settings
        if other and replace:
            self.remove()
        elif other:
            raise UserError(
                f"{self.folder} holds an unfinished evaluation of another model or with other "
                "settings: delete it, or name another folder for the results"
            )
        write_json(file, settings)

    def has(self, part: str) -> bool:
        return (self.folder / f"{part}.npz").is_file()

    def put(self, part: str, scores: Any, waves: _StemWaves) -> None:
        """Stores the scores, plain JSON, and the waves of a part, whole or not at all."""
        text = json.dumps({"scores": scores, "waves": list(waves)})
        pairs = enumerate(waves.values())
        arrays: dict[str, Any] = {str(number): np.stack(pair) for number, pair in pairs}
        arrays[SCORES] = np.asarray(text)
        with whole_file(self.folder / f"{part}.npz") as file, file.open("wb") as opened:
            np.savez(opened, **arrays)

    def get(self, part: str) -> tuple[Any, _StemWaves]:
        """The scores and the waves of a part."""
        with np.load(self.folder / f"{part}.npz", allow_pickle=False) as stored:
            content = json.loads(str(stored[SCORES]))
            pairs = [stored[str(number)] for number in range(len(content["waves"]))]
        named = zip(content["waves"], pairs, strict=True)
        return content["scores"], {name: (pair[0], pair[1]) for name, pair in named}

    def remove(self) -> None:
        """Removes the folder with all that is measured."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Whether this process is the one that finishes the evaluation; the folder is then removed.

        After a failure it is there again.
        """
        folder = self.folder
        mine = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            folder.rename(mine)
        except FileNotFoundError:  # another process was first
            yield False
            return
        self.folder = mine
        try:
            yield True
        except BaseException:
            mine.rename(folder)
            raise
        shutil.rmtree(mine, ignore_errors=True)


def fingerprint(networks: nnx.Module) -> str:
    """Distinguishes weights: the extremes of each parameter, the same on every mesh."""
    extremes = jax.device_get(_extremes(nnx.as_pure(nnx.state(networks, nnx.Param))))
    return hashlib.sha256(np.concatenate(extremes).tobytes()).hexdigest()[:16]


@jax.jit
def _extremes(parameters: PyTree) -> list[Array]:
    leaves = jax.tree.leaves(parameters)
    return [jnp.stack([x.min(), x.max()]).astype(jnp.float32) for x in leaves]
