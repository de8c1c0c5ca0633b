"""Three training steps on 8 CPU devices agree with those on one: run by test_parallel.py.

python tests/train/eight_devices.py [--all]

With --all on more meshes. Dropout and noise are drawn by position in the global batch, never by
device, so they are the same. Not a test file: the number of devices is fixed when JAX starts.
"""

import dataclasses
import pathlib
import runpy
import sys

import jax
import numpy as np
from jax.sharding import PartitionSpec

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.separator.refined_loss import RefinedConfig
from sam_audio_jax.train import loop
from sam_audio_jax.train.held_out import HeldOutItem, HeldOutLoss
from sam_audio_jax.train.objective import make_separator_training
from sam_audio_jax.train.step import jit_step

CONFIG = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
FRAMES, TOKENS = 8, 8


def batch(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    stems = {
        name: rng.normal(size=(8, FRAMES, 4)).astype(np.float32)
        for name in ("mixture", "target", "residual")
    }
    return stems | {
        "waves": rng.normal(size=(8, 2, FRAMES * CONFIG.codec.hop)).astype(np.float16),
        "valid": np.arange(FRAMES) < rng.integers(4, FRAMES + 1, size=(8, 1)),
        "text_ids": rng.integers(3, 200, size=(8, TOKENS)).astype(np.int32),
        "text_mask": np.arange(TOKENS) < rng.integers(1, TOKENS + 1, size=(8, 1)),
        "anchors": rng.choice([0, 1], size=(8, FRAMES)).astype(np.int32),
    }


def train(sizes: MeshConfig, devices: list[jax.Device]):
    mesh = parallel.make_mesh(sizes, devices)
    dit = dataclasses.replace(CONFIG.separator.dit, dropout=0.2)
    separator = dataclasses.replace(CONFIG.separator, dit=dit)
    refined = RefinedConfig(weight=0.1, seconds=0.1)
    config = dataclasses.replace(CONFIG, mesh=sizes, separator=separator, refined=refined)
    codec = parallel.init_sharded(lambda: Codec(config.codec, rngs=Rngs(0)), mesh)
    state, step, frozen = make_separator_training(config, codec, mesh)
    state = loop.put_state(state, mesh)
    jitted = jit_step(step, jax.tree.map(lambda x: x.sharding, state))
    losses = []
    for number in range(3):
        with jax.set_mesh(mesh):
            state, metrics = jitted(state, loop.to_devices(batch(number), mesh), frozen)
        losses.append(float(metrics["loss"]))
    return state, losses


def held_out_items() -> list[HeldOutItem]:
    """Eleven items of three lengths, which fill neither the rows of a step nor the devices."""

    def item(number: int) -> HeldOutItem:
        samples = CONFIG.codec.hop * (6 + number % 3) - 5
        stems = np.random.default_rng(number).normal(size=(2, samples)).astype(np.float32)
        domain = "speech" if number % 2 else "sfx"
        return HeldOutItem(domain, f"tone {number}", samples / 800, lambda: (stems[0], stems[1]))

    return [item(number) for number in range(11)]


def held_out_losses(state, sizes: MeshConfig, devices: list[jax.Device]) -> dict[str, float]:
    codec = parallel.init_sharded(lambda: Codec(CONFIG.codec, rngs=Rngs(0)))
    mesh = parallel.make_mesh(sizes, devices)
    return HeldOutLoss(CONFIG, codec, mesh, held_out_items())(state)


def check_shardings(state, spec: PartitionSpec):
    """Parameters, averages and moments of a matrix are all sharded alike."""
    adam = [leaf for leaf in jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu"))]
    mu = next(leaf.mu for leaf in adam if hasattr(leaf, "mu"))
    for tree in (state.params, state.ema, mu):
        kernel = tree["separator"]["dit"]["blocks"]["mlp"]["gate"]["kernel"]
        assert kernel.sharding.spec == spec, kernel.sharding.spec


MESHES = (
    MeshConfig(data=2, fsdp=1, sequence=4),
    MeshConfig(data=2, fsdp=2, tensor=2),  # the last: its shardings are checked
)
MORE_MESHES = (
    MeshConfig(data=8, fsdp=1),
    MeshConfig(fsdp=8),
    MeshConfig(data=4, fsdp=1, tensor=2),
)


def main():
    devices = jax.devices()
    assert len(devices) == 8
    alone, losses = train(MeshConfig(fsdp=1), devices[:1])
    spread = alone
    for sizes in (MORE_MESHES if "--all" in sys.argv else ()) + MESHES:
        spread, again = train(sizes, devices)
        np.testing.assert_allclose(again, losses, rtol=1e-4, err_msg=str(sizes))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
            jax.device_get(alone.params),
            jax.device_get(spread.params),
        )
    own = held_out_losses(alone, MeshConfig(fsdp=1), devices[:1])
    again = held_out_losses(spread, MESHES[-1], devices)
    assert len(own) == 6
    assert list(own) == list(again)
    np.testing.assert_allclose(list(again.values()), list(own.values()), rtol=1e-4)
    check_shardings(spread, PartitionSpec(None, "fsdp", "tensor"))


if __name__ == "__main__":
    main()
