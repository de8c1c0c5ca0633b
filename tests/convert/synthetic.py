"""Checkpoints of random weights in the upstream layout, of any size, written tensor by tensor."""

import functools
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_audio_jax.convert.codec import codec_config, codec_table
from sam_audio_jax.convert.folder import CODEC_PREFIX
from sam_audio_jax.convert.separator import separator_config, separator_table
from sam_audio_jax.convert.t5 import t5_config, t5_table
from sam_audio_jax.convert.tensors import Stored, write_state
from sam_audio_jax.convert.upstream_config import with_defaults
from sam_audio_jax.files import write_json


def write_synthetic(
    path: pathlib.Path,
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    rest: Mapping[str, Sequence[int]] | None = None,
    tokenizer: str = "byt5",
    seed: int = 0,
) -> None:
    """Writes a folder from upstream's `config.json` and T5's; missing keys take their defaults.

    The codec has no watermark. `rest` are the names and shapes of tensors that are only passed on
    (the vision tower). Values are small enough for finite results; they depend on seed and name.
    """
    full = with_defaults(config)
    codec = codec_config(full["audio_codec"], {})
    separator = separator_table(separator_config(full, "float32"))
    shapes = codec_table(codec, CODEC_PREFIX).shapes() | separator.shapes()
    shapes |= {name: tuple(shape) for name, shape in (rest or {}).items()}
    write_json(path / "config.json", config)
    write_json(path / "sam_audio_jax.json", {"tokenizer": tokenizer})
    write_json(path / "t5" / "config.json", text)
    write_state(path / "checkpoint.safetensors", _random_state(shapes, seed))
    write_state(
        path / "t5" / "model.safetensors", _random_state(t5_table(t5_config(text)).shapes(), seed)
    )


def _random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Stored]:
    return {
        name: Stored(shape, np.dtype(np.float32), functools.partial(_draw, name, shape, seed))
        for name, shape in shapes.items()
    }


def _draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draws matrices that keep the scale of activations, and gains and shifts near one."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    inputs = int(np.prod(shape[1:], dtype=np.int64))
    if inputs > 1:
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(inputs**-0.5)
        return values
    return 1 + np.float32(0.1) * rng.standard_normal(shape, np.float32)
