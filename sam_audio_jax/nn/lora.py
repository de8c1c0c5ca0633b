"""Low-rank adapters of linear layers: LoRA (arXiv 2106.09685; docs/finetuning.md, "LoRA").

Beside a frozen kernel stand two thin factors, `y = x W + scale (x A) B`. `B` starts at zero, so
that an adapted network starts as the network itself. Of stacked layers each has factors of its own,
with the same first axis as the kernels.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.linear import product

FACTORS = ("lora_a", "lora_b")  # names of the parameters beside a `kernel`

Tree = Mapping[str, Any]  # a pure tree of parameters: nested, with arrays as leaves
Factors = tuple[np.ndarray, np.ndarray]  # [*layers, size_in, rank] and [*layers, rank, size_out]


class AdaptedLinear(nnx.Module):
    """A linear layer with a low-rank adapter beside its kernel."""

    def __init__(self, layer: nnx.Linear, rank: int, scale: float, rngs: nnx.Rngs):
        """Takes over kernel and bias of `layer`, which may be a stack of layers."""
        self.kernel, self.dtype, self.scale = layer.kernel, layer.dtype, scale
        self.bias = layer.bias if isinstance(layer.bias, nnx.Param) else nnx.data(None)
        shape = layer.kernel.shape
        names = layer.kernel.get_metadata()["out_sharding"]
        a = jax.random.normal(rngs.params(), (*shape[:-1], rank)) / shape[-2] ** 0.5
        b = jnp.zeros((*shape[:-2], rank, shape[-1]))
        self.lora_a = nnx.Param(a, **parallel.axes(*names[:-1], "vector"))
        self.lora_b = nnx.Param(b, **parallel.axes(*names[:-2], "vector", names[-1]))

    def __call__(self, x: Float[Array, "*rows size_in"]) -> Float[Array, "*rows size_out"]:
        x = x.astype(self.dtype)
        kernel, a, b = (
            value[...].astype(self.dtype) for value in (self.kernel, self.lora_a, self.lora_b)
        )
        y = product(x, kernel) + self.scale * product(product(x, a), b)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


def add_adapters(
    network: nnx.Module, pattern: str, *, rank: int, scale: float, rngs: nnx.Rngs
) -> list[str]:
    """Puts an adapter beside each linear layer whose path, joined by dots, matches `pattern` whole.

    The network, which may be abstract, is changed in place. Returns the paths. Raises `UserError`
    where no layer matches.
    """
    layers = {
        ".".join(map(str, path)): path
        for path, module in nnx.iter_modules(network)
        if isinstance(module, nnx.Linear)
    }
    chosen = [name for name in sorted(layers) if re.fullmatch(pattern, name)]
    if not chosen:
        example = next(iter(layers), "none")
        raise UserError(f"lora.layers={pattern!r} matches no linear layer, as {example}")
    for path in chosen:
        *above, name = map(str, layers[path])
        owner = functools.reduce(getattr, above, network)
        setattr(owner, name, AdaptedLinear(getattr(owner, name), rank, scale, rngs))
    return chosen


def split_factors(tree: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """The factors of a pure tree, and everything else of it; parts without leaves are left out."""
    factors, rest = {}, {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inner = split_factors(value)
            for part, found in zip((factors, rest), inner, strict=True):
                if found:
                    part[name] = found
        else:
            (factors if name in FACTORS else rest)[name] = value
    return factors, rest


def joined(factors: Tree, rest: Tree) -> dict[str, Any]:
    """The inverse of `split_factors`."""
    both = dict(rest)
    for name, value in factors.items():
        both[name] = joined(value, rest.get(name, {})) if isinstance(value, Mapping) else value
    return both


def factors_by_layer(factors: Tree, above: str = "") -> dict[str, tuple[Any, Any]]:
    """The two factors of each adapted layer, by the path of the layer joined by dots."""
    if set(factors) == set(FACTORS):
        return {above.removesuffix("."): (factors[FACTORS[0]], factors[FACTORS[1]])}
    found = {}
    for name, value in factors.items():
        found |= factors_by_layer(value, f"{above}{name}.")
    return found


def merge_factors(network: nnx.Module, factors: Mapping[str, Factors], scale: float) -> None:
    """Adds `scale A B` to the kernels of the layers that are named, in place.

    Raises `UserError` for a layer that there is not, or is of another size, and for factors or a
    scale that make it NaN or infinite.
    """
    for name, (a, b) in factors.items():
        try:
            kernel: nnx.Param = functools.reduce(getattr, [*name.split("."), "kernel"], network)
        except AttributeError:
            raise UserError(
                f"the adapter is of a layer {name}, which the model does not have"
            ) from None
        shape = (*np.shape(a)[:-1], np.shape(b)[-1])
        if kernel.shape != shape:
            raise UserError(
                f"the adapter of {name} has {list(shape)}, the model {list(kernel.shape)}"
            )
        value = kernel.get_value()
        merged = _merged(value, jnp.asarray(a), jnp.asarray(b), jnp.float32(scale))
        if not jnp.isfinite(merged).all():
            raise UserError(
                f"the adapter of {name} makes values that are NaN or infinite: its file is "
                "damaged, or its scale too large"
            )
        kernel.set_value(jax.device_put(merged, value.sharding))


@jax.jit
def _merged(kernel: Array, a: Array, b: Array, scale: Array) -> Array:
    low = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
    return kernel + scale * low
