"""Work of a program, counted in its jaxpr: every matrix product and convolution, loops unrolled."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

_PRESETS = jax.lax.DotAlgorithmPreset
PASSES = {  # of the algorithms that take float32 apart; the others multiply once
    _PRESETS.BF16_BF16_F32_X3: 3,
    _PRESETS.BF16_BF16_F32_X6: 6,
    _PRESETS.BF16_BF16_F32_X9: 9,
    _PRESETS.F32_F32_F32: 6,
}


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or convolution: how often it runs, its operations and bytes of memory."""

    times: int
    flops: int
    moved: int  # bytes of both operands and the result
    scores: int  # of those, bytes that a fused attention kernel keeps to itself
    passes: int = 1  # of the matrix unit over bfloat16 parts of the operands; no more operations


def products(run: Callable[..., Any], *arguments: Any) -> list[Product]:
    """Every product of `run(*arguments)`; arguments may be `jax.ShapeDtypeStruct`s."""
    counted: list[Product] = []
    _walk(jax.make_jaxpr(run)(*arguments).jaxpr, 1, counted)
    return counted


def total(counted: list[Product]) -> int:
    """Floating-point operations, a multiply-add being two."""
    return sum(product.times * product.flops for product in counted)


def _walk(jaxpr: core.Jaxpr, times: int, counted: list[Product]) -> None:
    """Appends the products of a jaxpr that runs `times` times, and of those inside it."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            counted.append(_dot(equation, times))
        elif name == "conv_general_dilated":
            counted.append(_convolution(equation, times))
        trips = equation.params["length"] if name == "scan" else 1
        for inner in _inside(equation):
            _walk(inner, times * trips, counted)


def _inside(equation: Any) -> list[core.Jaxpr]:
    """The jaxprs that an equation runs.

    Of branches only one runs: the one with the most operations counts, of equal ones the last,
    which is the form of all other platforms where a product has one of its own for a CPU.
    """
    inner = _inner(tuple(equation.params.values()))
    if equation.primitive.name != "cond":
        return inner

    def operations(branch: core.Jaxpr) -> int:
        counted: list[Product] = []
        _walk(branch, 1, counted)
        return total(counted)

    return [max(reversed(inner), key=operations)]


def _inner(value: Any) -> list[core.Jaxpr]:
    """Returns the jaxprs in a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, (tuple, list)):
        return [jaxpr for item in value for jaxpr in _inner(item)]
    return []


def _bytes(variable: Any) -> int:
    """Returns the size of a variable."""
    return math.prod(variable.aval.shape) * variable.aval.dtype.itemsize


def _passes(equation: Any) -> int:
    """How often a TPU multiplies for the precision of a product; once by default."""
    if equation.invars[0].aval.dtype.itemsize <= 2:
        return 1
    precisions = equation.params["precision"]
    if isinstance(precisions, _PRESETS):
        return PASSES.get(precisions, 1)
    names = {one.name for one in precisions or () if isinstance(one, jax.lax.Precision)}
    return 6 if "HIGHEST" in names else 3 if "HIGH" in names else 1


def _dot(equation: Any, times: int) -> Product:
    """Returns the work of a `dot_general`."""
    (inner, _), (batch, _) = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    depth = math.prod(left[axis] for axis in inner)
    sizes = [_bytes(v) for v in (*equation.invars, *equation.outvars)]
    flops = 2 * depth * math.prod(equation.outvars[0].aval.shape)
    # Items and heads are batch dimensions of the products of attention only.
    return Product(times, flops, sum(sizes), max(sizes) if len(batch) > 1 else 0, _passes(equation))


def _convolution(equation: Any, times: int) -> Product:
    """Returns the work of a `conv_general_dilated`."""
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    depth = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    sizes = [_bytes(v) for v in (*equation.invars, *equation.outvars)]
    flops = 2 * depth * math.prod(equation.outvars[0].aval.shape)
    spread = math.prod(equation.params["lhs_dilation"])  # zeros between samples are no work
    return Product(times, flops // spread, sum(sizes), 0, _passes(equation))
