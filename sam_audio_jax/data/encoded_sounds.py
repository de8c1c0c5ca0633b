"""Sounds as the frozen parts of a judge give them, stored by `train/judge_cache.py`."""

import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Float32

from sam_audio_jax.files import read_object

Stage = Literal["", "latents", "frames"]  # how far sounds are encoded; "": waves
VALUES, SOUNDS = "values.npy", "sounds.json"  # of one shard
Stamp = list[int]


def stamp_of(path: str) -> Stamp:
    """By what a file is known to be the one that was encoded: its size, and when it was changed."""
    found = pathlib.Path(path).stat()
    return [found.st_size, found.st_mtime_ns]


class EncodedSounds:
    """The shards of one folder, memory-mapped: `sounds[path]` is `[frames, width]`."""

    def __init__(self, stage: Stage, folder: pathlib.Path):
        self.stage: Stage = stage
        self.folder = folder
        self._arrays: list[np.ndarray] = []
        self._where: dict[str, tuple[int, int, int]] = {}  # shard, row, frames
        self._stamps: dict[str, Stamp] = {}
        for number, shard in enumerate(sorted(folder.glob("[0-9]*"))):
            index = read_object(shard / SOUNDS)
            self._arrays.append(np.load(shard / VALUES, mmap_mode="r"))
            for row, (path, frames) in enumerate(zip(index["paths"], index["frames"], strict=True)):
                self._where[path] = (number, row, frames)
            self._stamps |= dict(zip(index["paths"], index.get("stamps", ()), strict=False))

    def __reduce__(self):
        return EncodedSounds, (self.stage, self.folder)

    def is_current(self, path: str) -> bool:
        """Whether the sound is here as its file now is."""
        return path in self._where and self._stamps.get(path) == stamp_of(path)

    def __getitem__(self, path: str) -> Float32[np.ndarray, "frames width"]:
        shard, row, frames = self._where[path]
        return self._arrays[shard][row, :frames].astype(np.float32)
