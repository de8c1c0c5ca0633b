"""Parameters between host and devices, one tensor at a time.

The host holds the shards of its devices, and one tensor on its way to or from them.
"""

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding

from sam_audio_jax import parallel
from sam_audio_jax.nn.storage import aligned_empty, check_range

FLOAT32 = np.dtype(np.float32)


def shardings(abstract: Any, mesh: Mesh | None) -> dict[tuple, Sharding | None]:
    """The sharding of each parameter of a module's state, by its path; None without a mesh."""
    paths = [path for path, _ in nnx.to_flat_state(abstract)]
    if mesh is None:
        return dict.fromkeys(paths)
    tree = parallel.parameter_shardings(abstract, mesh)
    return {path: functools.reduce(operator.getitem, path, tree) for path in paths}


def to_device(
    shape: tuple[int, ...],
    pieces: Iterable[np.ndarray],
    sharding: Sharding | None,
    *,
    stacked: bool,
    dtype: np.dtype = FLOAT32,
) -> jax.Array:
    """Makes an array from `pieces`: one for each layer if `stacked`, else one in all.

    Each piece is cast to `dtype` as it is copied into the shards of this host's devices, and then
    released. Every device has a share of all layers of a stack. Without a sharding the array is on
    the default device. Raises `UserError` for values that the dtype does not hold.
    """
    indices: Mapping = {None: (slice(None),) * len(shape)}
    if sharding is not None:
        indices = sharding.addressable_devices_indices_map(shape)
    bounds = {device: _bounds(index, shape) for device, index in indices.items()}
    shards = {
        bound: aligned_empty([stop - start for start, stop in bound], dtype)
        for bound in bounds.values()
    }
    slices = {bound: tuple(slice(start, stop) for start, stop in bound) for bound in shards}
    for layer, piece in enumerate(pieces):
        check_range(piece, dtype)
        for bound, shard in shards.items():
            if stacked:
                shard[layer] = piece[slices[bound][1:]]
            else:
                shard[...] = piece[slices[bound]]
    arrays = [jax.device_put(shards[bound], device) for device, bound in bounds.items()]
    if sharding is None:
        return arrays[0].block_until_ready()
    array = jax.make_array_from_single_device_arrays(shape, sharding, arrays)
    return array.block_until_ready()  # so that copies on their way do not pile up


def to_host(value: jax.Array, layer: int | None = None) -> np.ndarray:
    """Copies a parameter, or one layer of it, to the host; with several hosts, to each of them."""
    if not value.is_fully_addressable:
        part = value if layer is None else value[layer]
        return np.asarray(multihost_utils.process_allgather(part, tiled=True))
    # Not `np.asarray(value)`, whose result a sharded array keeps until it is deleted.
    whole = np.empty(value.shape if layer is None else value.shape[1:], value.dtype)
    for shard in value.addressable_shards:
        if layer is None:
            whole[shard.index] = np.asarray(shard.data)
        elif shard.device.platform == "cpu":  # its memory is the host's: no copy
            whole[shard.index[1:]] = np.asarray(shard.data)[layer]
        else:
            whole[shard.index[1:]] = np.asarray(shard.data[layer])
    return whole


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
