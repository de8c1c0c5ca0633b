"""Tables of names: reference tensors <-> our parameters, both ways, with every misfit named.

A row pairs a reference name with the path of our parameter. `{layer}` in a reference name stands
for the layers, which our side stacks on axis 0. A `TensorLayout` turns a stored tensor into ours
and back. Rows of one reference name hold consecutive pieces of its first axis, in the order of the
table: so a fused projection becomes queries, keys and values.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax.allocator import release_freed
from sam_audio_jax.convert.tensors import State, Stored, check_finite
from sam_audio_jax.convert.transfer import FLOAT32, shardings, to_device, to_host
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.storage import Storage, matrix_paths, store_pieces

WEIGHTS = ("float32", "bfloat16", "float16", "float64")  # dtypes of tensors that are weights

M = TypeVar("M", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class TensorLayout:
    """How one stored tensor becomes ours, and back; both work on any array with NumPy's methods."""

    to_ours: Callable[[Any], Any]
    to_theirs: Callable[[Any], Any]


SAME = TensorLayout(lambda w: w, lambda w: w)
LINEAR = TensorLayout(lambda w: w.T, lambda w: w.T)  # [out, in] <-> [in, out]
# [out, in, window] <-> [window, in, out]
CONV = TensorLayout(lambda w: w.transpose(2, 1, 0), lambda w: w.transpose(2, 1, 0))
POINTWISE = TensorLayout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])  # a conv of window 1
# Gains of queries and keys. The reference rotates neighbouring elements, we rotate the first half
# of a head against the second (nn/rope.py).
PAIRS = TensorLayout(
    lambda w: w.reshape(-1, 2).T.reshape(-1), lambda w: w.reshape(2, -1).T.reshape(-1)
)


def neighbours(heads: int) -> TensorLayout:
    """Kernels and biases of queries and keys, paired as `PAIRS`; heads are outermost in both."""

    def to_ours(w: Any) -> Any:
        return w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape).T

    def to_theirs(w: Any) -> Any:
        rows = w.T
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)

    return TensorLayout(to_ours, to_theirs)


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of the reference, or one for every layer."""

    theirs: str
    ours: str
    layout: TensorLayout = SAME
    layers: range | None = None  # the layers that have this tensor; None: all of the network

    @property
    def stacked(self) -> bool:
        """Whether our parameter holds the tensors of all layers, on axis 0."""
        return "{layer}" in self.theirs

    def names(self, depth: int) -> list[str]:
        """Reference names; one of them, or one for each layer."""
        if not self.stacked:
            return [self.theirs]
        layers = range(depth) if self.layers is None else self.layers
        return [self.theirs.replace("{layer}", str(layer)) for layer in layers]


def norm_rows(theirs: str, ours: str) -> list[Row]:
    """A norm with scale and bias."""
    return [Row(f"{theirs}.weight", f"{ours}.scale"), Row(f"{theirs}.bias", f"{ours}.bias")]


def linear_rows(theirs: str, ours: str) -> list[Row]:
    """A linear layer with a bias."""
    return [
        Row(f"{theirs}.weight", f"{ours}.kernel", LINEAR),
        Row(f"{theirs}.bias", f"{ours}.bias"),
    ]


def batch_norm_rows(theirs: str, ours: str) -> list[Row]:
    """A batch norm and its statistics."""
    return [
        Row(f"{theirs}.weight", f"{ours}.scale"),
        Row(f"{theirs}.bias", f"{ours}.bias"),
        Row(f"{theirs}.running_mean", f"{ours}.mean"),
        Row(f"{theirs}.running_var", f"{ours}.variance"),
    ]


def parameters(model: nnx.Module) -> dict[str, nnx.Variable]:
    """Every parameter of a model (or of its abstract shape) under its dotted path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable for path, variable in flat}


@dataclasses.dataclass(frozen=True)
class Table(Generic[M]):
    """One network: how it is made, and under which name each of its parameters is stored."""

    make: Callable[[], M]  # only traced
    rows: Sequence[Row]
    depth: int  # layers that `{layer}` counts
    what: str  # for errors

    @functools.cached_property
    def _traced(self) -> tuple[nnx.GraphDef[M], nnx.State]:
        return nnx.split(nnx.eval_shape(self.make))  # most of the work of a check

    @property
    def abstract(self) -> M:
        """The network without values, another one each time."""
        return nnx.merge(*self._traced, copy=True)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its tensors in the reference's checkpoint."""
        return self._shapes(self.abstract)

    def misfits(self, state: State) -> list[str]:
        """A phrase for each tensor that is missing, unexpected, mis-shaped or of whole numbers.

        No tensor is read.
        """
        wanted = self.shapes()
        phrases = []
        for name, shape in wanted.items():
            if name not in state:
                phrases.append(f"missing {name} {list(shape)}")
            elif tuple(state[name].shape) != shape:
                phrases.append(f"{name} has shape {list(state[name].shape)}, not {list(shape)}")
            elif state[name].dtype.name not in WEIGHTS:  # quantised: its scale is elsewhere
                phrases.append(f"{name} is {state[name].dtype}, not one of {', '.join(WEIGHTS)}")
        return phrases + [f"unexpected {name}" for name in sorted(set(state) - set(wanted))]

    def build(self, state: State, mesh: Mesh | None = None) -> M:
        """Checks and reads. Raises `UserError` that names every tensor that does not fit."""
        if wrong := self.misfits(state):
            raise UserError(f"{self.what} does not fit its config: {'; '.join(wrong)}")
        return self.read(state, mesh)

    def read(self, state: State, mesh: Mesh | None = None, storage: Storage = "float32") -> M:
        """The network with the weights of a state that is known to fit.

        With a mesh every parameter is sharded while it is read, tensor by tensor. `storage` is the
        form of its matrices, each of which is brought to it as soon as it is read. Raises
        `UserError` for values that are not finite.
        """
        # With variables of its own: else the table would hold what is read, too.
        network, (_, abstract) = self.abstract, self._traced
        narrowed = set(matrix_paths(network)) if storage != "float32" else set()
        stacked = {row.ours for row in self.rows if row.stacked}
        sharding, pieces = shardings(abstract, mesh), self._arrays(state)
        for path, variable in nnx.to_flat_state(abstract):
            ours, dtype = ".".join(map(str, path)), FLOAT32
            if path in narrowed:
                release_freed()  # what was read before, in float32
                dtype = store_pieces(network, tuple(map(str, path)), pieces[ours], storage)
            if dtype is None:
                continue
            value = to_device(
                variable.shape, pieces[ours], sharding[path], stacked=ours in stacked, dtype=dtype
            )
            nnx.update(network, nnx.from_flat_state([(path, variable.replace(value))]))
        if narrowed:
            release_freed()
        return network

    def _arrays(self, state: State) -> dict[str, Iterator[np.ndarray]]:
        """For each of our parameters what fills it, read when it is asked for."""

        def arrays(row: Row, piece: Any) -> Iterator[np.ndarray]:
            for name in row.names(self.depth):
                values = check_finite(name, np.asarray(state[name])[piece])
                yield row.layout.to_ours(values)

        return {
            row.ours: arrays(row, piece if shape else ())
            for row, shape, piece in self._pieces(self.abstract)
        }

    def stored(self, model: M) -> dict[str, Stored]:
        """The inverse of `read`: tensors under reference names, copied to the host when read."""
        ours = parameters(model)
        pieces: dict[str, list[Callable[[], np.ndarray]]] = {}
        for row in self.rows:
            value = ours[row.ours][...]
            for layer, name in enumerate(row.names(self.depth)):
                copy = functools.partial(to_host, value, layer if row.stacked else None)
                piece = functools.partial(_to_theirs, row.layout, copy)
                pieces.setdefault(name, []).append(piece)
        return {
            name: Stored(
                shape, np.dtype(np.float32), functools.partial(_concatenated, pieces[name])
            )
            for name, shape in self._shapes(model).items()
        }

    def _shapes(self, model: nnx.Module) -> dict[str, tuple[int, ...]]:
        wanted = {}
        for row, shape, piece in self._pieces(model):
            whole = (piece.stop, *shape[1:]) if shape else ()
            wanted |= dict.fromkeys(row.names(self.depth), whole)
        return wanted

    def _pieces(self, model: nnx.Module) -> Iterator[tuple[Row, tuple[int, ...], slice]]:
        """For every row its stored shape and its slice of the first axis of the named tensor."""
        ours = parameters(model)
        ends: dict[str, int] = {}
        for row in self.rows:
            shape = ours[row.ours].shape[1:] if row.stacked else ours[row.ours].shape
            theirs = row.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
            start = ends.get(row.theirs, 0)
            ends[row.theirs] = start + (theirs[0] if theirs else 1)
            yield row, theirs, slice(start, ends[row.theirs])


@dataclasses.dataclass(frozen=True)
class StoredNetwork(Generic[M]):
    """A network in a checkpoint: its table and the tensors that should fill it."""

    table: Table[M]
    state: State

    def misfits(self) -> list[str]:
        """As `Table.misfits`."""
        return self.table.misfits(self.state)

    def read(self, mesh: Mesh | None = None, storage: Storage = "float32") -> M:
        """As `Table.read`."""
        return self.table.read(self.state, mesh, storage)


def _to_theirs(layout: TensorLayout, copy: Callable[[], np.ndarray]) -> np.ndarray:
    return layout.to_theirs(copy())


def _concatenated(pieces: Sequence[Callable[[], np.ndarray]]) -> np.ndarray:
    arrays = [piece() for piece in pieces]
    return np.concatenate(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])
