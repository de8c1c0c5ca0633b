"""Attention kernels agree where both apply; the choice between them; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import parallel
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.kernels import attend, choose
from sam_audio_jax.parallel import MeshConfig


def drawn(frames: int, heads: int = 2, size: int = 64, batch: int = 2):
    rng = np.random.default_rng(frames)
    q, k, v = (
        jnp.asarray(rng.normal(size=(batch, frames, heads, size)), jnp.float32) for _ in "qkv"
    )
    return q, k, v, jnp.asarray(np.arange(frames) < [[frames], [frames - 40]])


@pytest.mark.parametrize("masked", [True, False])
def test_splash_agrees_with_xla_on_valid_rows(masked):
    q, k, v, valid = drawn(150)
    mask = valid if masked else None
    kept = valid[:, :, None, None] if masked else 1.0

    def run(kernel):
        def total(q, k, v):
            mixed = attend(q, k, v, mask=mask, scale=0.125, kernel=kernel)
            return jnp.sum(jnp.sin(mixed) * kept), mixed * kept

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    (_, xla), xla_grads = run("xla")
    (_, splash), splash_grads = run("splash")
    np.testing.assert_allclose(xla, splash, atol=2e-6)
    for a, b in zip(xla_grads, splash_grads, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_splash_on_a_mesh_is_the_same():
    q, k, v, valid = drawn(130)
    alone = attend(q, k, v, mask=valid, scale=0.125, kernel="splash")
    with jax.set_mesh(parallel.make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])):
        meshed = jax.jit(lambda *x: attend(*x, mask=valid, scale=0.125, kernel="splash"))(q, k, v)
    np.testing.assert_allclose(alone, meshed, atol=1e-6)


def test_auto_chooses_the_kernel_of_this_platform():
    q, k, _, valid = drawn(150)
    assert choose(q, k, mask=valid, bias=None, kernel="auto") == "xla"  # a CPU


@pytest.mark.parametrize(
    ("frames", "size", "bias"), [(100, 64, False), (150, 48, False), (150, 64, True)]
)
def test_splash_refuses_inputs_that_it_cannot_take(frames, size, bias):
    q, k, v, _ = drawn(frames, size=size)
    table = jnp.zeros((2, frames, frames)) if bias else None
    with pytest.raises(UserError, match=r"dit\.attention=splash needs"):
        attend(q, k, v, bias=table, scale=1.0, kernel="splash")


def test_cudnn_needs_a_gpu():
    q, k, v, _ = drawn(150)
    with pytest.raises(UserError, match="needs a GPU"):
        attend(q, k, v, scale=1.0, kernel="cudnn")
