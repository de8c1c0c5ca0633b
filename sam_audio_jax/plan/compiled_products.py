"""Matrix products of a compiled program, read from its text: operations and bytes of each.

On a TPU products are convolutions in the text, whose batch dimensions are windows that mostly lie
in the padding, and attention is a kernel of its own, whose products are known by its name.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from sam_audio_jax.plan import hlo
from sam_audio_jax.plan.flops import Product

KERNEL = 'custom_call_target="tpu_custom_call"'
# Products among frames in JAX's splash attention kernels; those of gradients compute the scores
# and their gradient, each for itself.
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_GROUPS = re.compile(r"batch_group_count=(\d+)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")

Shapes = Mapping[str, hlo.Shape]


def products_of(one: hlo.Instruction, shapes: Shapes, program: hlo.Computations) -> list[Product]:
    """The products of one run of an instruction, with those inside it where it is a fusion.

    `shapes` has the (first) results of the instructions of its computation.
    """
    if one.opcode == "convolution":
        return [_product(_convolution(one, shapes), one, shapes)]
    if one.opcode == "dot":
        return [_product(_dot(one, shapes), one, shapes)]
    if one.opcode == "custom-call" and KERNEL in one.attributes:
        return _kernel(one, shapes)
    if one.opcode != "fusion":
        return []
    found = []
    for name in one.called:
        inner = program.get(name, ())
        inside = first_results(inner)
        for part in inner:
            found += products_of(part, inside, program)
    return found


def first_results(instructions: Sequence[hlo.Instruction]) -> dict[str, hlo.Shape]:
    """The (first) result of each instruction by its name."""
    return {one.name: one.result[0] for one in instructions if one.result}


def _product(operations: int, one: hlo.Instruction, shapes: Shapes) -> Product:
    """A product that runs once and moves its operands and its results."""
    moved = sum(shapes[name].size for name in one.operands if name in shapes)
    return Product(1, operations, moved + sum(array.size for array in one.result), 0)


def _dot(one: hlo.Instruction, shapes: Shapes) -> int:
    """The operations of a `dot`."""
    contracted = _CONTRACTED.search(one.attributes)
    left = shapes[one.operands[0]].sides
    depth = math.prod(left[int(n)] for n in (contracted[1] if contracted else "").split(",") if n)
    return 2 * depth * math.prod(one.result[0].sides)


def _convolution(one: hlo.Instruction, shapes: Shapes) -> int:
    """The operations of a convolution; what would be multiplied with padding or holes is none."""
    labels = _LABELS.search(one.attributes)
    if labels is None:
        raise ValueError(f"convolution without dim_labels: {one.name}")
    left, right = (shapes[name].sides for name in one.operands[:2])
    window = _window(one)
    pairs = 1
    for label in sorted(set(labels[3]) - set("bf")):
        side = left[labels[1].index(label)]
        pairs *= _pairs(side, one.result[0].sides[labels[3].index(label)], int(label), window)
    groups = _GROUPS.search(one.attributes)
    batch = left[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    channels = right[labels[2].index("i")] * right[labels[2].index("o")]
    return 2 * pairs * batch * channels


def _window(one: hlo.Instruction) -> dict[str, list[str]]:
    """The fields of a window, each with its values by spatial dimension."""
    match = _WINDOW.search(one.attributes)
    fields = (field.split("=") for field in (match[1] if match else "").split())
    return {key: values.split("x") for key, values in fields}


def _pairs(side: int, results: int, axis: int, window: Mapping[str, list[str]]) -> int:
    """How many pairs of an input and a kernel's element a convolution multiplies along one axis."""

    def field(name: str, default: str) -> str:
        return window[name][axis] if name in window else default

    padding = int(field("pad", "0_0").split("_")[0])
    dilation = int(field("lhs_dilate", "1"))
    kernel = np.arange(int(field("size", "1"))) * int(field("rhs_dilate", "1"))
    starts = np.arange(results) * int(field("stride", "1")) - padding
    positions = starts[:, None] + kernel
    inside = (positions >= 0) & (positions <= (side - 1) * dilation)
    return int(np.sum(inside & (positions % dilation == 0)))


def _kernel(one: hlo.Instruction, shapes: Shapes) -> list[Product]:
    """The products of a Pallas kernel of splash attention; none of one that is not known."""
    times = next((n for name, n in SPLASH.items() if one.name.startswith(name)), 0)
    queries = next(
        (shapes[name].sides for name in one.operands if len(shapes[name].sides) == 4), None
    )
    if not times or queries is None:
        return []
    rows, heads, frames, size = queries
    return [_product(times * 2 * rows * heads * frames**2 * size, one, shapes)]
