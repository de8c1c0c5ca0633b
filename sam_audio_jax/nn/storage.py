"""How inference keeps the matrices of a network: in float32, in 16 bits, or as int8 by Qwix.

Matrices are what layers multiply by in the network's own dtype, nearly all of its parameters.
Norms, biases, tables and what is always computed in float32 (the embedding of the flow time of a
bfloat16 network) stay float32. docs/inference.md has the sizes and the errors.
"""

import functools
import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError

Compute = Literal["float32", "bfloat16"]  # dtype of matrix products
Storage = Literal["float32", "bfloat16", "float16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "float16", "int8")
MATRICES = ("kernel", "embedding")  # names of parameters in modules that have a dtype
INT8_ERROR = 0.05  # most of |kernel as int8 - kernel| / |kernel|; usual is below 0.01
LINE = 64  # bytes; JAX's CPU device uses an array that starts on a cache line without a copy

M = TypeVar("M", bound=nnx.Module)


def compute_of(storage: Storage) -> Compute:
    """The dtype of the products of networks that are kept so.

    float16 is widened to float32 layer by layer: T5's activations exceed its range.
    """
    return "bfloat16" if storage in ("bfloat16", "int8") else "float32"


class QuantizedLinear(nnx.Module):
    """A linear layer whose kernel is int8 with one float32 scale for each output channel.

    The kernel is widened to the layer's dtype in front of the product (Qwix).
    """

    def __init__(self, kernel: nnx.Param, scale: nnx.Param, bias: nnx.Param | None, dtype: str):
        self.int8_kernel, self.scale, self.dtype = kernel, scale, dtype
        self.bias = nnx.data(None) if bias is None else bias

    def __call__(self, x: Float[Array, "*rows size_in"]) -> Float[Array, "*rows size_out"]:
        qwix = _qwix()
        kernel = qwix.QArray(self.int8_kernel[...], self.scale[...].astype(self.dtype))
        contracted = ((x.ndim - 1,), (0,)), ((), ())
        y = qwix.dot_general(x.astype(self.dtype), kernel, contracted)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


def matrix_paths(network: nnx.Module) -> list[tuple[str, ...]]:
    """Where the matrices are that a network multiplies by in its lowest dtype."""
    holders = [
        ((*map(str, path), name), getattr(module, "dtype", None))
        for path, module in nnx.iter_modules(network)
        for name in MATRICES
        if isinstance(getattr(module, name, None), nnx.Param)
    ]
    narrow = any(dtype == "bfloat16" for _, dtype in holders)
    wanted = "bfloat16" if narrow else "float32"
    return [path for path, dtype in holders if dtype == wanted]


def store_matrix(network: nnx.Module, path: tuple[str, ...], storage: Storage) -> None:
    """Keeps one matrix of a network, which may be abstract, in another form.

    int8 is for linear layers; what else multiplies is then kept in bfloat16. Raises `UserError` for
    values that float16 does not hold.
    """
    owner, name = _owner(network, path), path[-1]
    if storage == "int8" and isinstance(owner, nnx.Linear):
        _replace(network, path, quantized(owner))
    elif storage != "float32":
        variable = getattr(owner, name)
        setattr(owner, name, variable.replace(_cast(variable.get_value(), _dtype(storage))))


def store_pieces(
    network: nnx.Module, path: tuple[str, ...], pieces: Iterable[np.ndarray], storage: Storage
) -> np.dtype | None:
    """Makes room for a matrix that is read piece by piece, the layers of a stack or one in all.

    Returns the dtype to which each piece is to be cast; None if the matrix, of an abstract network,
    was read and quantised here.
    """
    owner = _owner(network, path)
    if storage != "int8" or not isinstance(owner, nnx.Linear):
        return np.dtype(_dtype(storage))
    _replace(network, path, quantized(owner, pieces))
    return None


def _owner(network: nnx.Module, path: tuple[str, ...]) -> Any:
    return functools.reduce(getattr, path[:-1], network)


def _replace(network: nnx.Module, path: tuple[str, ...], small: "QuantizedLinear") -> None:
    owner = _owner(network, path)
    setattr(_owner(network, path[:-1]), path[-2], small)
    owner.kernel = small.int8_kernel  # modules are in cycles: the float32 one goes at once


def _dtype(storage: Storage) -> str:
    return "bfloat16" if storage == "int8" else storage


def stored(network: M, storage: Storage) -> M:
    """The network with all of its matrices in another form, changed in place."""
    for path in matrix_paths(network):
        store_matrix(network, path, storage)
    return network


def quantized(layer: nnx.Linear, pieces: Iterable[np.ndarray] | None = None) -> QuantizedLinear:
    """The layer with an int8 kernel; of a stack, each layer is quantised by itself.

    `pieces` are the kernel of an abstract layer, one for each layer of a stack. Raises `UserError`
    for a kernel that int8 does not hold.
    """
    kernel: Any = layer.kernel.get_value()  # or a jax.ShapeDtypeStruct of an abstract network
    stack, matrix = kernel.shape[:-2], kernel.shape[-2:]
    values = jax.ShapeDtypeStruct(kernel.shape, jnp.int8)
    scale = jax.ShapeDtypeStruct((*stack, 1, matrix[-1]), jnp.float32)
    if pieces is None and not isinstance(kernel, jax.ShapeDtypeStruct):
        pieces = iter(kernel.reshape(-1, *matrix))
    if pieces is not None:
        flat_values = aligned_empty((math.prod(stack), *matrix), np.dtype(np.int8))
        flat_scale = np.empty((math.prod(stack), 1, matrix[-1]), np.float32)
        for number, piece in enumerate(pieces):
            flat_values[number], flat_scale[number], error = _quantize(np.asarray(piece))
            if not float(error) <= INT8_ERROR:
                raise UserError(
                    f"a matrix of {matrix} changes by {float(error):.1%} as int8, and "
                    f"{INT8_ERROR:.0%} is allowed: use bfloat16"
                )
        values = jax.device_put(flat_values.reshape(values.shape))
        scale = jax.device_put(flat_scale.reshape(scale.shape))
    # Logical axes of the kernel, which has none outside a network.
    axes = cast(Any, layer.kernel).get_metadata().get("out_sharding")
    names = scales = {}
    if axes:
        names = parallel.axes(*axes)
        scales = parallel.axes(*axes[:-2], "vector", axes[-1])
    bias = layer.bias if isinstance(layer.bias, nnx.Param) else None
    return QuantizedLinear(
        nnx.Param(values, **names), nnx.Param(scale, **scales), bias, str(layer.dtype)
    )


def aligned_empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that starts on a cache line."""
    size = dtype.itemsize * math.prod(shape)
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(dtype).reshape(shape)


@jax.jit
def _quantize(matrix: Float[Array, "size_in size_out"]) -> tuple[Array, Array, Array]:
    """int8 values, the scale of each output channel, and the error relative to the matrix.

    From float32: Qwix quantises in the dtype of the matrix, and of one in float16 the scales are
    lost.
    """
    wide = matrix.astype(jnp.float32)
    part = _qwix().quantize(wide, jnp.int8, channelwise_axes=(1,))
    norm = jnp.linalg.norm(wide)
    error = jnp.linalg.norm(part.qvalue * part.scale - wide)
    return part.qvalue, part.scale, jnp.where(norm == 0, error, error / norm)


def _qwix() -> Any:
    """Qwix, an extra; imported for int8 alone."""
    try:
        return importlib.import_module("qwix")
    except ModuleNotFoundError:
        raise UserError("dtype='int8' needs Qwix: pip install 'sam-audio-jax[int8]'") from None


def _cast(value: Any, dtype: str) -> Any:
    if isinstance(value, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(value.shape, jnp.dtype(dtype))
    check_range(value, np.dtype(dtype))
    return value.astype(dtype)


def check_range(
    value: Any, dtype: np.dtype, *, what: str = "a matrix", instead: str = "bfloat16"
) -> None:
    """Raises `UserError` for values that float16 does not hold; other dtypes hold all.

    `what` has them, and `instead` is a dtype in which the network can be kept.
    """
    if dtype == np.float16 and float(abs(value).max()) > float(np.finfo(np.float16).max):
        raise UserError(f"{what} has values above 65504, too large for float16: use {instead}")


def check_storage(storage: str, *, on_mesh: bool) -> Storage:
    """Returns the name of a storage. Raises `UserError` for another one, and for int8 on a mesh."""
    if storage not in STORAGES:
        raise UserError(f"dtype={storage!r} is unknown; allowed: {', '.join(STORAGES)}")
    if storage == "int8":
        _qwix()
        if on_mesh:
            raise UserError("dtype='int8' is for one device; with a mesh use bfloat16")
    return storage
