"""Checkpoints of random weights in the upstream layout, of any size, written tensor by tensor.

For what needs a checkpoint's size and not its knowledge: conversion, loading, speed.
"""

import functools
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax.convert.codec import codec_table
from sam_audio_jax.convert.files import write_json
from sam_audio_jax.convert.folder import CODEC_PREFIX
from sam_audio_jax.convert.separator import separator_table
from sam_audio_jax.convert.t5 import t5_config, t5_table
from sam_audio_jax.convert.tensors import Stored, write_state
from sam_audio_jax.convert.upstream_config import checked_config, codec_config, separator_config


def write_synthetic(
    path: pathlib.Path,
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    watermark: Mapping[str, Any] | None = None,
    rest: Mapping[str, Sequence[int]] | None = None,
    tokenizer: str = "byt5",
    seed: int = 0,
) -> None:
    """A new folder from upstream's `config.json` and T5's; missing keys take their defaults.

    `watermark` are fields of the codec's config that upstream does not store, `rest` the names and
    shapes of tensors that are only passed on (the vision tower). Values are small enough for finite
    results; they depend on seed and name alone.
    """
    full = checked_config(dict(config))
    codec = codec_config(full["audio_codec"], {}, dict(watermark or {}))
    separator = separator_table(separator_config(full, "float32"))
    shapes = codec_table(codec, CODEC_PREFIX).shapes() | separator.shapes()
    shapes |= {name: tuple(shape) for name, shape in (rest or {}).items()}
    (path / "t5").mkdir(parents=True)
    write_json(path / "config.json", config)
    write_json(path / "sam_audio_jax.json", {"tokenizer": tokenizer})
    write_json(path / "t5" / "config.json", text)
    write_state(path / "checkpoint.safetensors", _drawn(shapes, seed))
    write_state(path / "t5" / "model.safetensors", _drawn(t5_table(t5_config(text)).shapes(), seed))


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Stored]:
    return {
        name: Stored(shape, np.dtype(np.float32), functools.partial(_draw, name, shape, seed))
        for name, shape in shapes.items()
    }


def _draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Matrices that keep the size of what goes through them; gains and shifts near one."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    inputs = int(np.prod(shape[1:], dtype=np.int64))
    if inputs > 1:
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(inputs**-0.5)
        return values
    return 1 + np.float32(0.1) * rng.standard_normal(shape, np.float32)
