"""The effort that the compiler is asked for, and what it says where memory is lacking."""

import jax
import jax.numpy as jnp
import pytest

from sam_audio_jax import parallel
from sam_audio_jax.cli.plan import read_options
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.plan import programs


class Program:
    """A jitted function that no memory is enough for."""

    def lower(self, *arguments):
        return self

    def compile(self, compiler_options):
        self.options = compiler_options
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (1.56T) exceeds available HBM (94.75G)."
        )


@pytest.mark.parametrize(
    ("flags", "options"),
    [([], {"exec_time_optimization_effort": -1.0}), (["--thorough"], None)],
)
def test_the_least_effort_is_the_default(flags, options):
    chosen, rest = read_options(["small@v5e-256", *flags])
    assert rest == []
    program = Program()
    mesh = parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    compiled = programs._compiled(program, (jnp.ones(1),), mesh, chosen.thorough)
    assert program.options == options
    assert (compiled.fits, compiled.needed) == (False, pytest.approx(1.56 * 2**40))
