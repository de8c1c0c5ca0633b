"""Tables of names: reference tensors <-> our parameters, both ways, with every misfit named.

A row pairs a reference name with the path of our parameter. `{layer}` in a reference name stands
for the layers, which our side stacks on axis 0. A `Layout` turns a stored tensor
into ours and back.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sam_audio_jax.errors import UserError

M = TypeVar("M", bound=nnx.Module)
State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one stored tensor becomes ours, and back; works on any array with numpy's methods."""

    to_ours: Callable[[Any], Any]
    to_theirs: Callable[[Any], Any]


SAME = Layout(lambda w: w, lambda w: w)
LINEAR = Layout(lambda w: w.T, lambda w: w.T)  # [out, in] <-> [in, out]
CONV = Layout(lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0))  # [out, in, window]
POINTWISE = Layout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])  # a conv of window 1


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of the reference, or one for every layer."""

    theirs: str
    ours: str
    layout: Layout = SAME

    def names(self, depth: int) -> list[str]:
        """Reference names; one of them, or `depth`."""
        if "{layer}" not in self.theirs:
            return [self.theirs]
        return [self.theirs.replace("{layer}", str(layer)) for layer in range(depth)]


def parameters(model: nnx.Module) -> dict[str, nnx.Variable]:
    """Every parameter of a model (or of its abstract shape) under its dotted path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable for path, variable in flat}


def shapes(model: nnx.Module, rows: Sequence[Row], depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of its reference checkpoint; the model may be abstract (`eval_shape`)."""
    ours = parameters(model)
    wanted = {}
    for row in rows:
        stacked = "{layer}" in row.theirs
        shape = ours[row.ours].shape[1:] if stacked else ours[row.ours].shape
        theirs = row.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
        wanted |= dict.fromkeys(row.names(depth), theirs)
    return wanted


def misfits(wanted: Mapping[str, tuple[int, ...]], state: State) -> Iterator[str]:
    """One phrase for every tensor that is missing, unexpected or of another shape."""
    for name, shape in wanted.items():
        if name not in state:
            yield f"missing {name} {list(shape)}"
        elif tuple(state[name].shape) != shape:
            yield f"{name} has shape {list(state[name].shape)}, not {list(shape)}"
    for name in sorted(set(state) - set(wanted)):
        yield f"unexpected {name}"


def from_reference(
    make: Callable[[], M], rows: Sequence[Row], depth: int, state: State, *, what: str
) -> M:
    """A model with the reference's weights, in float32; `make` is only traced.

    Raises `UserError` naming every missing, unexpected or mis-shaped tensor.
    """
    model = nnx.eval_shape(make)
    wrong = list(misfits(shapes(model, rows, depth), state))
    if wrong:
        raise UserError(f"{what} does not fit its config: {'; '.join(wrong)}")
    loaded = {}
    for row in rows:
        arrays = [
            row.layout.to_ours(np.asarray(state[name], np.float32)) for name in row.names(depth)
        ]
        loaded[row.ours] = np.stack(arrays) if "{layer}" in row.theirs else arrays[0]
    graph, abstract = nnx.split(model)
    flat = [
        (path, variable.replace(jnp.asarray(loaded[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def to_reference(model: nnx.Module, rows: Sequence[Row], depth: int) -> dict[str, np.ndarray]:
    """The exact inverse: tensors under reference names, in the reference's shapes."""
    ours = parameters(model)
    state = {}
    for row in rows:
        value = np.asarray(ours[row.ours][...])
        layers = value if "{layer}" in row.theirs else [value]
        for name, layer in zip(row.names(depth), layers, strict=True):
            state[name] = np.ascontiguousarray(row.layout.to_theirs(layer))
    return state
