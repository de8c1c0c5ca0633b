"""Sounds as the frozen parts of a judge give them, stored by `train/judge_cache.py`."""

import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Float32

from sam_audio_jax.files import read_object

Stage = Literal["", "latents", "frames"]  # how far sounds are encoded; "": waves
VALUES, SOUNDS = "values.npy", "sounds.json"  # of one shard


class EncodedSounds:
    """The shards of one folder, memory-mapped: `sounds[path]` is `[frames, width]`."""

    def __init__(self, stage: Stage, folder: pathlib.Path):
        self.stage: Stage = stage
        self.folder = folder
        self._arrays: list[np.ndarray] = []
        self._where: dict[str, tuple[int, int, int]] = {}  # shard, row, frames
        for number, shard in enumerate(sorted(folder.glob("[0-9]*"))):
            index = read_object(shard / SOUNDS)
            self._arrays.append(np.load(shard / VALUES, mmap_mode="r"))
            for row, (path, frames) in enumerate(zip(index["paths"], index["frames"], strict=True)):
                self._where[path] = (number, row, frames)

    def __reduce__(self):
        return EncodedSounds, (self.stage, self.folder)

    def __contains__(self, path: str) -> bool:
        return path in self._where

    def __getitem__(self, path: str) -> Float32[np.ndarray, "frames width"]:
        shard, row, frames = self._where[path]
        return self._arrays[shard][row, :frames].astype(np.float32)
