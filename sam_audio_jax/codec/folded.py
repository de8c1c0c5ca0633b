"""The codec for inference in little memory: kernels as they are used, in float16.

A program computes each kernel from its direction and scale, and arranges those of the upsampling as
matrices: copies as large as the weights. Here it is done once, when a model is loaded. The kernels
are then kept in float16 and widened to float32 layer by layer: nothing else is computed in less
(docs/numerics.md has the error). Folded codecs are not for training or checkpoints.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.allocator import release_freed
from sam_audio_jax.nn.conv import (
    KERNEL_AXES,
    Output,
    Signal,
    WeightNormConv1d,
    WeightNormConvTranspose1d,
    convolve,
    upsample_by_matrix,
    upsampling_matrix,
)
from sam_audio_jax.nn.storage import check_range

M = TypeVar("M", bound=nnx.Module)
STORED = np.dtype(np.float16)


class FoldedConv1d(nnx.Module):
    """What `WeightNormConv1d` computes."""

    def __init__(self, layer: WeightNormConv1d):
        self.stride, self.dilation, self.bias = layer.stride, layer.dilation, layer.bias
        self.kernel = nnx.Param(_kernel(layer, (0, 1), (1, 1, -1)), **KERNEL_AXES)

    def __call__(self, x: Signal) -> Output:
        kernel = self.kernel[...].astype(jnp.float32)
        pad = (kernel.shape[0] - self.stride) * self.dilation // 2
        y = convolve(x, kernel, stride=self.stride, dilation=self.dilation, pad=(pad, pad))
        return y + self.bias[...]


class FoldedConvTranspose1d(nnx.Module):
    """What `WeightNormConvTranspose1d` computes."""

    def __init__(self, layer: WeightNormConvTranspose1d):
        self.stride, self.bias = layer.stride, layer.bias
        matrix = _kernel(layer, (0, 2), (1, -1, 1), stride=layer.stride)
        self.matrix = nnx.Param(matrix, **parallel.axes("channels", "channels"))

    def __call__(self, x: Signal) -> Output:
        y = upsample_by_matrix(x, self.matrix[...].astype(jnp.float32), self.stride)
        left = (self.stride + 1) // 2
        return y[:, left : left + x.shape[1] * self.stride] + self.bias[...]


def folded(network: M) -> M:
    """The network with every weight norm applied, changed in place; it may be abstract."""
    folds = {WeightNormConv1d: FoldedConv1d, WeightNormConvTranspose1d: FoldedConvTranspose1d}
    for _, module in list(nnx.iter_modules(network)):
        for name, layer in list(vars(module).items()):
            if fold := folds.get(type(layer)):
                setattr(module, name, fold(layer))
                del layer.direction  # modules are in cycles: it goes at once
    release_freed()
    return network


def _kernel(
    layer: Any, axes: tuple[int, int], scale_shape: tuple[int, int, int], stride: int = 0
) -> Any:
    """Direction times scale over its norm; with a stride as the matrix of an upsampling."""
    direction = layer.direction.get_value()
    if isinstance(direction, jax.ShapeDtypeStruct):
        window, inputs, outputs = direction.shape
        shape = (2 * inputs, stride * outputs) if stride else (window, inputs, outputs)
        return jax.ShapeDtypeStruct(shape, STORED)
    direction, scale = np.asarray(direction), np.asarray(layer.scale[...])
    norm = np.sqrt(np.sum(np.square(direction), axis=axes, keepdims=True))
    kernel = direction * (scale.reshape(scale_shape) / norm)
    check_range(kernel, STORED, what="a kernel of the codec", instead="dtype='float32'")
    kernel = kernel.astype(STORED)
    # Not by jnp.asarray, which compiles a program for every shape and keeps it.
    return jax.device_put(upsampling_matrix(kernel, stride) if stride else kernel)
