"""Tensors that stay in their files until they are read, and files written one tensor at a time.

A `State` maps names to tensors. A `Stored` one is known by shape and dtype; `numpy.asarray` reads
it, so that a loop over a state holds one tensor at a time, however large the checkpoint.
"""

import dataclasses
import functools
import json
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.files import whole_file

# Names of the safetensors format, in the order in which its own writer sorts them.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Pages of a mapped file count as this process's memory until the mapping goes.
MAPPED_BYTES = 64 * 2**20
CHECKED = 2**18  # values at once, which fit into a processor's cache


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file or on a device; each `numpy.asarray` reads it again."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.asarray(self.read())
        return values if dtype is None else values.astype(dtype, copy=False)


Tensor = np.ndarray | Stored
State = Mapping[str, Tensor]


def open_safetensors(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of a safetensors file; only its header is read.

    Tensors are read, not mapped, so that no page of the file counts as this process's memory.
    Raises `UserError` for a file that is not whole, and for a dtype that NumPy does not have.
    """
    try:
        with safe_open(path, "numpy"):  # checks header, offsets and length
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {first_line(error)}") from error
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{path}: {name} has dtype {entry['dtype']}, which cannot be read")
        shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
        offset = 8 + size + entry["data_offsets"][0]
        read = functools.partial(_read_tensor, path, name, offset, shape, dtype)
        state[name] = Stored(shape, dtype, read)
    return state


def _read_tensor(
    path: pathlib.Path, name: str, offset: int, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    try:
        raw = np.fromfile(path, np.uint8, size, offset=offset)
    except OSError as error:
        raise UserError(f"{path}: {name} cannot be read: {first_line(error)}") from error
    if len(raw) < size:
        raise UserError(f"{path} was cut off: {name} has {len(raw)} of {size} bytes")
    return raw.view(dtype).reshape(shape)


def open_torch(path: pathlib.Path, key: str = "") -> dict[str, Stored]:
    """The tensors of a pickled state dict, weights only: nothing in the file can run.

    `key` names the state dict in a file that holds more. The data of zip archives, which torch
    writes since version 1.6, stays in the file; an older file is held whole. Raises `UserError` for
    a damaged file, one that holds other things than tensors, and without torch.
    """
    file = _TorchFile(path, key)
    state = {}
    for name, tensor in file.tensors.items():
        torch_dtype = getattr(tensor, "dtype", None)
        dtype = _numpy_dtype(str(torch_dtype).removeprefix("torch."))
        if dtype is None:
            kind = type(tensor).__name__ if torch_dtype is None else torch_dtype
            raise UserError(f"{path}: {name} is no tensor that can be read but {kind}")
        read = functools.partial(file.read, name, dtype)
        state[str(name)] = Stored(tuple(tensor.shape), dtype, read)
    return state


def read_torch_entry(path: pathlib.Path, key: str) -> Any:
    """A plain value beside the tensors of a pickled file, read as safely; None if it has none.

    Raises `UserError` as `open_torch`.
    """
    return _load_torch(path, mapped=zipfile.is_zipfile(path)).get(key)


class _TorchFile:
    """A state dict mapped by torch; it is mapped again after `MAPPED_BYTES` of reading."""

    def __init__(self, path: pathlib.Path, key: str):
        self.path, self.key = path, key
        self.mapped = zipfile.is_zipfile(path)
        self.load()

    def load(self) -> None:
        self.read_bytes = 0
        content = _load_torch(self.path, mapped=self.mapped)
        if self.key and not isinstance(content.get(self.key), dict):
            raise UserError(f"{self.path} holds no tensors under {self.key!r}")
        self.tensors = content[self.key] if self.key else content

    def read(self, name: str, dtype: np.dtype) -> np.ndarray:
        if self.mapped and self.read_bytes > MAPPED_BYTES:
            self.load()
        tensor = self.tensors[name].detach().contiguous()
        self.read_bytes += tensor.nbytes
        flat = (
            tensor.reshape(-1).view(_torch().uint8).numpy()
        )  # NumPy does not know torch's bfloat16
        return flat.view(dtype).reshape(tuple(tensor.shape))


def _torch() -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    return torch


class _NotRead:
    """Stands for a value that is not a tensor: it is made of anything and holds nothing."""

    def __init__(self, *parts: Any):
        del parts

    def __setstate__(self, state: Any) -> None:
        del state


# Numbers of NumPy, such as the best loss, which checkpoints of training have beside their tensors
# (LAION's CLAP), under the names that NumPy 1 and 2 write.
_NOT_READ = [
    type(name, (_NotRead,), {"__module__": module, "__qualname__": name})
    for module, name in (
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "dtype"),
    )
]


def _load_torch(path: pathlib.Path, *, mapped: bool) -> dict[str, Any]:
    try:
        torch = _torch()
    except ImportError as error:
        raise UserError(
            f"{path} needs torch to be read: pip install 'sam-audio-jax[torch]', "
            f"or give {path.stem}.safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals(_NOT_READ):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors or is damaged; nothing in it was run"
        ) from error
    except Exception as error:  # a broken pickle can raise anything
        raise UserError(f"{path} is not a whole file of tensors: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not names with tensors")
    return content


def _numpy_dtype(name: str) -> np.dtype | None:
    return next((dtype for dtype in NAMES if dtype.name == name), None)


def check_finite(name: str, values: np.ndarray) -> np.ndarray:
    """Returns values that are all finite, floats of any size.

    Raises `UserError` for others, with which a network computes nothing. A piece is looked at at a
    time, so that no mask of a large tensor is held.
    """
    bits = np.dtype(f"u{values.itemsize}")
    exponent = np.array(np.inf, values.dtype).view(bits)  # by which NaN and infinity are known
    flat = values.reshape(-1).view(bits)
    for start in range(0, flat.size, CHECKED):
        if ((flat[start : start + CHECKED] & exponent) == exponent).any():
            raise UserError(
                f"{name} has values that are NaN or infinite: the file is damaged, or its training "
                "diverged"
            )
    return values


def write_state(path: pathlib.Path, state: State, dtype: str | None = None) -> None:
    """Writes a safetensors file, tensor by tensor, whole or not at all.

    Its bytes are those that the library of the format writes. `dtype` is that of floating tensors
    in the file; None keeps each tensor's own. Raises `UserError` for values too large for it.
    """
    kinds = {name: _file_dtype(tensor.dtype, dtype) for name, tensor in state.items()}
    order = list(NAMES)
    # Wide types first keep every tensor aligned.
    names = sorted(state, key=lambda name: (-order.index(kinds[name]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        shape = state[name].shape
        start, end = end, end + kinds[name].itemsize * int(np.prod(shape, dtype=np.int64))
        entry = {"dtype": NAMES[kinds[name]], "shape": list(shape), "data_offsets": [start, end]}
        header[name] = entry
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            values = _cast(name, state, kinds[name])
            file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def write_torch(path: pathlib.Path, state: State, dtype: str | None = None) -> None:
    """Writes a pickled state dict, for code that reads nothing else; torch holds all of it.

    `dtype` as in `write_state`. Raises `UserError` without torch.
    """
    try:
        torch = _torch()
    except ImportError as error:
        raise UserError(
            f"{path.name} needs torch to be written: pip install 'sam-audio-jax[torch]'"
        ) from error
    tensors = {}
    for name, tensor in state.items():
        kind = _file_dtype(tensor.dtype, dtype)
        values = np.ascontiguousarray(_cast(name, state, kind))
        flat = torch.from_numpy(values.reshape(-1).view(np.uint8).copy())
        tensors[name] = flat.view(getattr(torch, kind.name)).reshape(tuple(tensor.shape))
    with whole_file(path) as part:
        torch.save(tensors, part)


def _file_dtype(own: np.dtype, wanted: str | None) -> np.dtype:
    if own not in NAMES:
        raise UserError(f"tensors of dtype {own} cannot be written")
    floating = NAMES[own].startswith(("F", "BF"))
    return np.dtype(wanted) if wanted is not None and floating else own


def _cast(name: str, state: State, dtype: np.dtype) -> np.ndarray:
    """A tensor of the state in another dtype. Raises `UserError` for values too large for it.

    Small values lose digits, in float16 all of them below 3e-8, which hardly counts in a network,
    because no norm there is of a kernel; a tensor that loses all of its values is a warning. The
    exception are the directions of a weight norm, whose size is arbitrary: they keep their digits.
    """
    values = np.asarray(state[name])
    if values.dtype == dtype:
        return values
    gain = state.get(f"{name.removesuffix('weight_v')}weight_g")
    by_row = values.shape[:1] + (1,) * (values.ndim - 1)
    if name.endswith("weight_v") and gain is not None and gain.shape == by_row:
        values = _within_range(values, dtype)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= float(ml_dtypes.finfo(dtype).max):
        raise UserError(f"{name} has values up to {largest:g}, too large for {dtype}")
    cast = values.astype(dtype)
    if largest > 0 and not cast.any():
        warnings.warn(f"{name} has values up to {largest:g}, all 0 in {dtype}", stacklevel=3)
    return cast


def _within_range(directions: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rows of a weight norm, those of a size that the dtype does not hold well near 1.

    They are multiplied by powers of two, which changes no digit, and of a row only its direction
    counts.
    """
    limits = ml_dtypes.finfo(dtype)
    axes = tuple(range(1, directions.ndim))
    largest = np.abs(directions).max(axis=axes, initial=0.0, keepdims=True)
    held = (largest >= 2**4 * float(limits.tiny)) & (largest <= float(limits.max))
    power = np.where(held, 0, -np.frexp(largest)[1])
    return np.ldexp(directions, power)
