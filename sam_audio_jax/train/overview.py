"""A table of the parameters of a run: how many, how large, and how they are sharded."""

import math
from typing import Any

import jax
from jaxtyping import PyTree

HEADER = ("module", "parameters", "MiB", "MiB/device", "dtype", "largest", "shape", "sharding")


def parameter_table(modules: dict[str, PyTree]) -> str:
    """One line of text per module, and one for the sum.

    `modules` are trees of arrays with shardings. The largest parameter of each is named with its
    shape and its partition; MiB/device is what the device that holds the most of it holds.
    """
    rows = [(name, *_row(tree)) for name, tree in modules.items() if jax.tree.leaves(tree)]
    total = ("all", *_row(modules)[:4], "", "", "")
    lines = [HEADER, *rows, total]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(tree: PyTree) -> tuple[str, ...]:
    leaves: list[tuple[Any, jax.Array]] = jax.tree_util.tree_leaves_with_path(tree)
    path, largest = max(leaves, key=lambda item: item[1].size)
    return (
        f"{sum(leaf.size for _, leaf in leaves):,}",
        f"{sum(leaf.nbytes for _, leaf in leaves) / 2**20:.1f}",
        f"{sum(_bytes_per_device(leaf) for _, leaf in leaves) / 2**20:.1f}",
        " ".join(sorted({str(leaf.dtype) for _, leaf in leaves})),
        jax.tree_util.keystr(path, simple=True, separator="."),
        "x".join(map(str, largest.shape)),
        _partition(largest),
    )


def _partition(leaf: jax.Array) -> str:
    spec = getattr(leaf.sharding, "spec", None)
    if spec is None:
        return "one device"
    return f"({', '.join(map(str, spec))})" if any(spec) else "replicated"


def _bytes_per_device(leaf: jax.Array) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
