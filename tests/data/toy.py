"""A toy codec and teacher, and short ways to configs, batches and caches of them."""

import dataclasses
import itertools
import os
from typing import Any

import numpy as np

from sam_audio_jax.data import pipeline, shards
from sam_audio_jax.data.config import (
    BatchConfig,
    DataConfig,
    MixConfig,
    PromptConfig,
    SourceConfig,
)

RATE, HOP = 8000, 320  # Hz, samples of one frame
PARTS = {"mix": MixConfig, "prompts": PromptConfig, "batches": BatchConfig}

Batch = dict[str, np.ndarray]


def config(world: str, **fields: Any) -> DataConfig:
    """Two seconds of the manifest `world`; each of `fields` goes to the part that has it."""
    base = DataConfig(source=SourceConfig(manifests=(world,)), mix=MixConfig(seconds=2.0))
    return replaced(base, **fields)


def replaced(base: DataConfig, **fields: Any) -> DataConfig:
    """The config with `fields` changed, each in the part that has it."""
    for part, cls in PARTS.items():
        names = {field.name for field in dataclasses.fields(cls)} & fields.keys()
        changes = {name: fields.pop(name) for name in names}
        changed = dataclasses.replace(getattr(base, part), **changes)
        base = dataclasses.replace(base, **{part: changed})
    return dataclasses.replace(base, **fields)


def encode(waves: np.ndarray) -> np.ndarray:
    """A codec whose latents are the RMS and the first three samples of each frame."""
    frames = waves.reshape(len(waves), -1, HOP)
    rms = np.sqrt(np.mean(np.square(frames), -1, keepdims=True))
    return np.concatenate([rms, frames[..., :3]], -1)


def features(waves: np.ndarray) -> np.ndarray:
    """A teacher with segments of 0.24 s: the segment's number, from 1 on, and the wave's RMS."""
    pieces = waves[:, : 12 * 1920].reshape(len(waves), 12, 1920)
    rms = np.sqrt(np.mean(np.square(pieces), -1))
    return np.stack([np.broadcast_to(np.arange(1.0, 13.0), rms.shape), rms], -1)


TEACHER = shards.Teacher("toy", 0.24, features)


def write_cache(
    folder: str | os.PathLike, cfg: DataConfig, items: int, encode=encode, **changes: Any
) -> bool:
    """Writes or resumes a cache of the toy codec, in shards of 8 records."""
    mixer = pipeline.mixer(cfg, RATE, HOP)
    arguments = {
        "items": items,
        "sample_rate": RATE,
        "hop": HOP,
        "samples": mixer.samples,
        "codec": "toy",
        "recipe": pipeline.recipe(cfg),
        "per_shard": 8,
        "batch": 3,
    }
    return shards.write_cache(
        folder,
        lambda number: mixer.draw(np.random.default_rng((cfg.seed, 1, number))),
        encode,
        **arguments | changes,
    )


def separation(cfg: DataConfig, batch: int = 0, **processes: int) -> pipeline.BatchStream:
    """Batches at the toy codec's rate."""
    return pipeline.separation_batches(cfg, RATE, HOP, batch, **processes)


def take(batches: pipeline.BatchStream, count: int) -> list[Batch]:
    """The next `count` batches; their threads and processes are ended."""
    result = list(itertools.islice(batches, count))
    batches.close()
    return result


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
