"""Networks called as compiled programs.

`jax.jit` takes arrays: a network goes in as its graph, which is static, and the state of its
parameters. This is the one place where inference does so; training has its own step.
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from sam_audio_jax import parallel
from sam_audio_jax.allocator import release_freed
from sam_audio_jax.nn.stack import stack_bytes, unstacked, with_bits

# Bytes of stacked weights from which on a CPU it pays to unroll the layers: a third of the time of
# a forward pass of `small`, for a compile time that grows with the depth.
LARGE_STACK = 2**26
# Narrower matrices stay in their scan: XLA on a CPU widens them to float32, one layer at a time
# there, but all of them at once, ahead of the solver's loop, where layers are unrolled.
# Products by Eigen instead of XLA's fusions for YNNPACK: a sixth faster for wide layers.
CPU_OPTIONS = (("xla_cpu_experimental_ynn_fusion_type", ""),)
# Widens a layer's weights when it runs: by default all of them, as early as they can be.
SAVING_OPTIONS = (("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"),)

NARROW = tuple(map(jnp.dtype, ("bfloat16", "float16", "int8")))  # how matrices are kept in less

# Shapes of one program whose compiled forms are kept; then all are forgotten, so that a process
# that meets a new length with each recording does not grow for ever.
KEPT_PROGRAMS = 32

Network = TypeVar("Network", bound=nnx.Module)
T = TypeVar("T")


class Compiled(Generic[Network]):
    """A network on its devices, whose calls are compiled once for each program and shape.

    `compiled(Codec.encode, wave)` is `codec.encode(wave)`. A program is a function of a module, or
    a method, whose first argument is the network; its positional arguments are arrays or trees of
    them, its named ones are static and hashable. All networks of one structure share its compiled
    form.

    With a mesh the parameters are sharded by `parallel.parameter_shardings`. Without one, on a CPU,
    a large network has its layers unrolled, see `LARGE_STACK`; for a network that is kept in less
    than float32 memory comes before speed (`saves_memory`).
    """

    def __init__(self, network: Network, mesh: Mesh | None = None):
        self.network, self.mesh = network, mesh
        on_cpu = mesh is None and parallel.platform() == "cpu"
        self._unrolled = on_cpu and stack_bytes(network) >= LARGE_STACK
        self.saves_memory = on_cpu and is_narrow(network)
        self._options = CPU_OPTIONS if self._unrolled else ()
        if self.saves_memory:
            self._options += SAVING_OPTIONS
        if on_cpu:
            network = unstacked(network) if self._unrolled else with_bits(network)
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

    def compile(
        self, program: Callable[Concatenate[Network, ...], Any], *arrays: Any, **static: Any
    ) -> Any:
        """Compiles a program as a call without a mesh would; the network may be abstract.

        The result is a `jax.stages.Compiled`.
        """
        jit = jitted(program, self._options)
        static_pairs = tuple(static.items())
        return jit.lower(self._graph, self._state, arrays, static_pairs).compile()

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
        compiled = jitted(program, self._options)
        if compiled._cache_size() >= KEPT_PROGRAMS:
            compiled.clear_cache()
        run = functools.partial(compiled, self._graph, self._state)
        if self.mesh is None:
            result = run(arrays, tuple(static.items()))
            if self.saves_memory:
                jax.block_until_ready(result)
                release_freed()
            return result
        with jax.set_mesh(self.mesh):
            return run(jax.device_put(arrays, sharding), tuple(static.items()))


def is_narrow(network: nnx.Module) -> bool:
    """Whether any parameter is kept in less than float32; the network may be abstract."""
    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    return any(leaf.dtype in NARROW for leaf in leaves)


def power_of_two(count: int, *, least: int = 1) -> int:
    """The smallest power of two that is `count` or more, and `least` or more."""
    return max(least, 1 << (max(count, 1) - 1).bit_length())


def padded_rows(count: int, most: int, shards: int = 1) -> int:
    """Rows of a batch of `count`: a power of two on each shard, at most `most` there.

    So few shapes are compiled, whatever the counts are.
    """
    return shards * min(most, power_of_two(-(-count // shards)))


def jitted(program: Callable[..., Any], options: tuple[tuple[str, str], ...] = ()) -> Any:
    """The program as a jitted function `(graph, state, arrays, static)`, under its own name.

    `arrays` are the positional arguments, `static` the pairs of the named ones; `options` those of
    XLA's compiler.
    """
    return _jitted(program, options)


@functools.cache
def _jitted(program: Callable[..., Any], options: tuple[tuple[str, str], ...]) -> Any:
    def run(graph: nnx.GraphDef, state: Any, arrays: tuple, static: tuple) -> Any:
        return program(nnx.merge(graph, state), *arrays, **dict(static))

    run.__name__ = program.__qualname__
    return jax.jit(run, static_argnums=(0, 3), compiler_options=dict(options) or None)
