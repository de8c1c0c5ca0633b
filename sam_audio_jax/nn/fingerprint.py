"""What distinguishes the weights of two networks of one structure, on any mesh.

A fingerprint has 32 hexadecimal digits: 16 of the extremes of each parameter and 16 of a sum over
all of its values. Files of earlier versions have the first 16 alone: to compare with what was
saved, use `same_weights` or `in_saved_form`.
"""

import hashlib
import string
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree, UInt32

from sam_audio_jax import parallel

DIGITS = 16  # of either part
CHUNK = 2**15  # values that are summed at once on a CPU
# Odd constants by which bits are mixed (those of xxHash, which have no pattern).
PLACE, FIRST, SECOND = (np.uint32(x) for x in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D))
SMALLEST = np.float32(2.0**-14)  # of normal float16
LEAST = np.float32(2.0**24)  # 1 / the smallest float16 of all


def fingerprint(networks: nnx.Module, *, rounded: bool = False) -> str:
    """Distinguishes weights: extremes and a sum of each parameter, the same on every mesh.

    With `rounded` values are rounded to float16, so that a copy in a float16 file is the same.
    """
    return fingerprint_of(nnx.as_pure(nnx.state(networks, nnx.Param)), rounded=rounded)


def fingerprint_of(weights: PyTree, *, rounded: bool = False) -> str:
    """The `fingerprint` of a tree of parameters."""
    leaves = jax.tree.leaves(weights)
    if _is_in_memory(leaves):
        arrays = list(map(np.asarray, leaves))
        pairs = ((np.min(array), np.max(array)) for array in arrays)
        extremes = [np.asarray(pair, np.float32) for pair in pairs]
    else:
        extremes = jax.device_get(_extremes(leaves))
    joined = np.concatenate(extremes)
    if rounded:
        with np.errstate(over="ignore"):
            joined = joined.astype(np.float16)
    return _digits(joined) + checksum_of(leaves, rounded=rounded)


def checksum_of(values: PyTree, *, rounded: bool = False) -> str:
    """The second half of a fingerprint: of a sum over the bits and places of all values."""
    leaves = jax.tree.leaves(values)
    if _is_in_memory(leaves):
        sums = [_sum_in_chunks(np.asarray(leaf), rounded=rounded) for leaf in leaves]
    else:
        sums = jax.device_get(_sums(leaves, rounded=rounded))
    return _digits(np.asarray(sums, np.uint32))


def _is_in_memory(leaves: list[Array]) -> bool:
    """Whether NumPy can read them all, without a program that takes longer to compile than run."""
    return parallel.platform() == "cpu" and all(leaf.is_fully_addressable for leaf in leaves)


def _digits(numbers: np.ndarray) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:DIGITS]


def same_weights(saved: str, now: str) -> bool:
    """Whether a saved fingerprint, perhaps one of an earlier version, is the one of now."""
    if len(saved) == DIGITS and len(now) == 2 * DIGITS and set(now) <= set(string.hexdigits):
        return saved == now[:DIGITS]
    return saved == now


def in_saved_form(now: Any, saved: Any) -> Any:
    """JSON of now, with fingerprints as in what was saved where that has the same weights."""
    match now, saved:
        case str(), str() if same_weights(saved, now):
            return saved
        case dict(), dict():
            return {key: in_saved_form(value, saved.get(key)) for key, value in now.items()}
        case list(), list() if len(now) == len(saved):
            return [in_saved_form(one, then) for one, then in zip(now, saved, strict=True)]
    return now


def _mixed(bits: Any, places: Any) -> Any:
    """A number for each value and its place; sums of them, modulo 2^32, are exact in any order."""
    bits = (bits ^ (bits >> 15)) * FIRST
    bits = (bits ^ (bits >> 13)) * SECOND
    return (bits ^ (bits >> 16)) * (places * PLACE | np.uint32(1))


def _sum_in_chunks(array: np.ndarray, *, rounded: bool) -> np.uint32:
    """The sum of `_mixed` over an array, by NumPy."""
    total = 0
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        piece = flat[start : start + CHUNK].astype(np.float32)
        if rounded:
            with np.errstate(over="ignore"):
                bits = piece.astype(np.float16).view(np.uint16).astype(np.uint32)
        else:
            bits = piece.view(np.uint32)
        places = np.arange(start, start + piece.size).astype(np.uint32)
        total += int(_mixed(bits, places).sum(dtype=np.uint32))
    return np.uint32(total % 2**32)


@jax.jit
def _extremes(leaves: list[Array]) -> list[Array]:
    """The smallest and the largest value of each array, wherever its parts are."""
    return [jnp.stack([x.min(), x.max()]).astype(jnp.float32) for x in leaves]


@jax.jit(static_argnames="rounded")
def _sums(leaves: list[Array], *, rounded: bool) -> list[Array]:
    """The sum of `_mixed` of each array, wherever its parts are."""
    return [_sum(x.astype(jnp.float32), rounded=rounded) for x in leaves]


def _sum(x: Array, *, rounded: bool) -> UInt32[Array, ""]:
    places = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        steps = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        places = places * np.uint32(x.shape[axis] % 2**32) + steps
    bits = _half_bits(x) if rounded else jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.sum(_mixed(bits, places), dtype=jnp.uint32)


def _half_bits(x: Array) -> UInt32[Array, "..."]:
    """The bits of float32 rounded to float16, in integers: not all devices keep its small values.

    Halves go to even, and what is too large becomes infinite, as in IEEE 754.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign, size = bits >> 31 << 15, bits & np.uint32(0x7FFFFFFF)
    normal = ((size + np.uint32(0xFFF) + (size >> 13 & 1)) >> 13) - np.uint32(112 << 10)
    small = jnp.round(jnp.abs(x) * LEAST).astype(jnp.uint32)
    half = jnp.where(jnp.abs(x) < SMALLEST, small, jnp.minimum(normal, np.uint32(31 << 10)))
    return sign | half
