"""Networks called as compiled programs.

`jax.jit` takes arrays: a network goes in as its graph, which is static, and the state of its
parameters. This is the one place where inference does so; training has its own step.
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from sam_audio_jax import parallel

Network = TypeVar("Network", bound=nnx.Module)
T = TypeVar("T")


class Compiled(Generic[Network]):
    """A network on its devices, whose calls are compiled once for each program and shape.

    `compiled(Codec.encode, wave)` is `codec.encode(wave)`. A program is a function of a module, or
    a method, whose first argument is the network; its positional arguments are arrays or trees of
    them, its named ones are static and hashable. All networks of one structure share its compiled
    form.

    With a mesh the parameters are sharded by `parallel.parameter_shardings`.
    """

    def __init__(self, network: Network, mesh: Mesh | None = None):
        self.network, self.mesh = network, mesh
        self._graph, state = nnx.split(network)
        self._state = nnx.as_pure(state)
        if mesh is not None:
            shardings = parallel.parameter_shardings(state, mesh)
            self._state = jax.device_put(self._state, shardings)

    @property
    def batch_shards(self) -> int:
        """The number of shards of a batch; the rows of `on_batch` must be a multiple of it."""
        return 1 if self.mesh is None else parallel.batch_axis_size(self.mesh)

    def __call__(
        self, program: Callable[Concatenate[Network, ...], T], *arrays: Any, **static: Any
    ) -> T:
        """Runs a program; with a mesh its arrays are replicated on all devices."""
        sharding = None if self.mesh is None else parallel.replicated(self.mesh)
        return self._run(program, arrays, static, sharding)

    def on_batch(
        self, program: Callable[Concatenate[Network, ...], T], *arrays: Any, **static: Any
    ) -> T:
        """Runs a program; with a mesh the first axis of its arrays is sharded over devices."""
        sharding = None if self.mesh is None else parallel.batch_sharding(self.mesh)
        return self._run(program, arrays, static, sharding)

    def _run(
        self,
        program: Callable[..., T],
        arrays: tuple[Any, ...],
        static: dict[str, Any],
        sharding: NamedSharding | None,
    ) -> T:
        run = functools.partial(jitted(program), self._graph, self._state)
        if self.mesh is None:
            return run(arrays, tuple(static.items()))
        with jax.set_mesh(self.mesh):
            return run(jax.device_put(arrays, sharding), tuple(static.items()))


@functools.cache
def jitted(program: Callable[..., Any]) -> Any:
    """The program as a jitted function `(graph, state, arrays, static)`, under its own name.

    `arrays` are the positional arguments, `static` the pairs of the named ones.
    """

    def run(graph: nnx.GraphDef, state: Any, arrays: tuple, static: tuple) -> Any:
        return program(nnx.merge(graph, state), *arrays, **dict(static))

    run.__name__ = program.__qualname__
    return jax.jit(run, static_argnums=(0, 3))
