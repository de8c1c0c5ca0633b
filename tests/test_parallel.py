import pathlib
import subprocess
import sys

import jax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from tests.children import environment

ROOT = pathlib.Path(__file__).parent.parent


def test_a_mesh_that_does_not_fit_the_devices_is_the_users_error():
    with pytest.raises(UserError, match=r"data=1 x fsdp=3 x tensor=1 x sequence=1 .* 1 devices"):
        parallel.make_mesh(MeshConfig(fsdp=3), jax.devices()[:1])
    with pytest.raises(UserError, match="at most one axis can be -1"):
        MeshConfig(data=-1)
    with pytest.raises(UserError, match="1 or more"):
        MeshConfig(tensor=0)


def test_one_device_is_a_mesh_too():
    mesh = parallel.make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}
    assert parallel.batch_axis_size(mesh) == 1


@pytest.mark.parametrize(
    ("inputs", "spec"),
    [(8, PartitionSpec("fsdp", "tensor")), (7, PartitionSpec(None, "tensor"))],
)
def test_parameters_are_sharded_by_their_axes_where_the_mesh_divides_them(inputs, spec):
    devices = jax.sharding.AbstractMesh((1, 2, 4, 1), parallel.MESH_AXES)

    def make() -> nnx.Linear:
        metadata = parallel.axes("embed", "mlp")
        return nnx.Linear(inputs, 12, kernel_metadata=metadata, rngs=Rngs(0))

    shardings = parallel.parameter_shardings(nnx.state(nnx.eval_shape(make)), devices)
    assert shardings["kernel"].spec == spec
    assert shardings["bias"].spec == PartitionSpec()


def test_two_axes_of_one_array_cannot_be_split_along_one_mesh_axis():
    with pytest.raises(ValueError, match="two are split along one mesh axis"):
        parallel.axes("heads", "mlp")
    with pytest.raises(ValueError, match="two are split along one mesh axis"):
        parallel.axes("batch", "embed")


def test_constrain_without_a_mesh_does_nothing():
    x = jax.numpy.ones((2, 3))
    assert parallel.constrain(x, "batch", "frames") is x


@pytest.mark.parametrize(("frames", "axis"), [(8, "sequence"), (9, None)])
def test_constrain_leaves_whole_what_the_mesh_does_not_divide(frames, axis):
    devices = jax.sharding.AbstractMesh((1, 2, 1, 2), parallel.MESH_AXES)
    with jax.sharding.use_abstract_mesh(devices):
        traced = jax.make_jaxpr(lambda x: parallel.constrain(x, "batch", "frames", "width"))(
            jax.numpy.ones((4, frames, 3))
        )
    (pinned,) = traced.eqns
    assert pinned.params["sharding"].spec == PartitionSpec(("data", "fsdp"), axis, None)


@pytest.mark.processes
@pytest.mark.parametrize("flags", [[], pytest.param(["--all"], marks=pytest.mark.long)])
def test_training_is_the_same_on_eight_devices(flags):
    """A process of its own: the number of devices is fixed when JAX starts.

    Takes long because it compiles a training step for one device and two (with --all five) for
    eight devices.
    """
    command = [sys.executable, str(ROOT / "tests" / "train" / "eight_devices.py"), *flags]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(devices=8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
