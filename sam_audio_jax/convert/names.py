"""Tables of names: reference tensors <-> our parameters, both ways, with every misfit named.

A row pairs a reference name with the path of our parameter. `{layer}` in a reference name stands
for the layers, which our side stacks on axis 0. A `Layout` turns a stored tensor
into ours and back. Rows of one reference name hold consecutive pieces of its first axis, in the
table's order: so a fused projection becomes queries, keys and values.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.convert.tensors import State, Stored
from sam_audio_jax.convert.transfer import shardings, to_device, to_host
from sam_audio_jax.errors import UserError

M = TypeVar("M", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one stored tensor becomes ours, and back; works on any array with numpy's methods."""

    to_ours: Callable[[Any], Any]
    to_theirs: Callable[[Any], Any]


SAME = Layout(lambda w: w, lambda w: w)
LINEAR = Layout(lambda w: w.T, lambda w: w.T)  # [out, in] <-> [in, out]
CONV = Layout(lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0))  # [out, in, window]
POINTWISE = Layout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])  # a conv of window 1
# Gains of queries and keys, whose neighbours are turned in pairs, ours half against half (nn/rope).
PAIRS = Layout(lambda w: w.reshape(-1, 2).T.reshape(-1), lambda w: w.reshape(2, -1).T.reshape(-1))


def neighbours(heads: int) -> Layout:
    """Kernels and biases of queries and keys with such pairs, heads outside as ours."""

    def to_ours(w: Any) -> Any:
        return w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape).T

    def to_theirs(w: Any) -> Any:
        rows = w.T
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)

    return Layout(to_ours, to_theirs)


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of the reference, or one for every layer."""

    theirs: str
    ours: str
    layout: Layout = SAME
    layers: range | None = None  # the layers that have this tensor; None: all of the network

    def names(self, depth: int) -> list[str]:
        """Reference names; one of them, or one for each layer."""
        if "{layer}" not in self.theirs:
            return [self.theirs]
        layers = range(depth) if self.layers is None else self.layers
        return [self.theirs.replace("{layer}", str(layer)) for layer in layers]


def parameters(model: nnx.Module) -> dict[str, nnx.Variable]:
    """Every parameter of a model (or of its abstract shape) under its dotted path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable for path, variable in flat}


def shapes(model: nnx.Module, rows: Sequence[Row], depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of its reference checkpoint; the model may be abstract (`eval_shape`)."""
    wanted = {}
    for row, shape, place in _pieces(model, rows):
        whole = (place.stop, *shape[1:]) if shape else ()
        wanted |= dict.fromkeys(row.names(depth), whole)
    return wanted


def _pieces(model: nnx.Module, rows: Sequence[Row]) -> Iterator[tuple[Row, tuple[int, ...], slice]]:
    """For every row its stored shape and where it lies on the first axis of the named tensor."""
    ours = parameters(model)
    ends: dict[str, int] = {}
    for row in rows:
        stacked = "{layer}" in row.theirs
        shape = ours[row.ours].shape[1:] if stacked else ours[row.ours].shape
        theirs = row.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
        start = ends.get(row.theirs, 0)
        ends[row.theirs] = start + (theirs[0] if theirs else 1)
        yield row, theirs, slice(start, ends[row.theirs])


def misfits(wanted: Mapping[str, tuple[int, ...]], state: State) -> Iterator[str]:
    """One phrase for every tensor that is missing, unexpected or of another shape."""
    for name, shape in wanted.items():
        if name not in state:
            yield f"missing {name} {list(shape)}"
        elif tuple(state[name].shape) != shape:
            yield f"{name} has shape {list(state[name].shape)}, not {list(shape)}"
    for name in sorted(set(state) - set(wanted)):
        yield f"unexpected {name}"


@dataclasses.dataclass(frozen=True)
class Table(Generic[M]):
    """One network of a checkpoint: how it is made, and where each of its parameters is stored."""

    make: Callable[[], M]  # only traced
    rows: Sequence[Row]
    depth: int  # layers that `{layer}` counts
    what: str  # for errors

    @functools.cached_property
    def abstract(self) -> M:
        """The network without values; to trace it is most of the work of a check."""
        return nnx.eval_shape(self.make)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its tensors in the reference's checkpoint."""
        return shapes(self.abstract, self.rows, self.depth)

    def misfits(self, state: State) -> list[str]:
        """A phrase for each tensor that is missing, unexpected or mis-shaped; no tensor is read."""
        return list(misfits(self.shapes(), state))

    def build(self, state: State, mesh: Mesh | None = None) -> M:
        """`read`, after a check: a `UserError` names every tensor that does not fit."""
        if wrong := self.misfits(state):
            raise UserError(f"{self.what} does not fit its config: {'; '.join(wrong)}")
        return self.read(state, mesh)

    def read(self, state: State, mesh: Mesh | None = None) -> M:
        """The network with the weights of a state that is known to fit, in float32.

        With a mesh every parameter is born in its places, tensor by tensor.
        """
        graph, abstract = nnx.split(self.abstract)
        places = shardings(abstract, mesh)
        sources = {
            row.ours: (row, shape, cut) for row, shape, cut in _pieces(self.abstract, self.rows)
        }
        flat = []
        for path, variable in nnx.to_flat_state(abstract):
            row, shape, cut = sources[".".join(map(str, path))]
            pieces = (
                row.layout.to_ours(np.asarray(state[name])[cut if shape else ()])
                for name in row.names(self.depth)
            )
            stacked = "{layer}" in row.theirs
            value = to_device(variable.shape, pieces, places[path], stacked=stacked)
            flat.append((path, variable.replace(value)))
        return nnx.merge(graph, nnx.from_flat_state(flat))

    def stored(self, model: M) -> dict[str, Stored]:
        """The inverse of `read`."""
        return stored(model, self.rows, self.depth)


def stored(model: nnx.Module, rows: Sequence[Row], depth: int) -> dict[str, Stored]:
    """Every parameter under its reference name, fetched when somebody asks for it."""
    ours = parameters(model)
    parts: dict[str, list[Callable[[], np.ndarray]]] = {}
    for row in rows:
        value = ours[row.ours][...]
        stacked = "{layer}" in row.theirs
        for layer, name in enumerate(row.names(depth)):
            fetch = functools.partial(to_host, value, layer if stacked else None)
            parts.setdefault(name, []).append(functools.partial(_theirs, row.layout, fetch))
    return {
        name: Stored(shape, np.dtype(np.float32), functools.partial(_joined, parts[name]))
        for name, shape in shapes(model, rows, depth).items()
    }


def _theirs(layout: Layout, fetch: Callable[[], np.ndarray]) -> np.ndarray:
    return layout.to_theirs(fetch())


def _joined(parts: Sequence[Callable[[], np.ndarray]]) -> np.ndarray:
    arrays = [part() for part in parts]
    return np.concatenate(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])


def to_reference(model: nnx.Module, rows: Sequence[Row], depth: int) -> dict[str, np.ndarray]:
    """The inverse of `Table.build`: tensors under reference names, in the reference's shapes."""
    return {name: np.asarray(tensor) for name, tensor in stored(model, rows, depth).items()}
