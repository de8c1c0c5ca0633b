import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.nn.linear import product


def test_gradients_are_those_of_the_plain_product():
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, weight = (
        jax.random.normal(k, s) for k, s in zip(keys, [(2, 3, 4), (4, 5), (2, 3, 5)], strict=True)
    )
    ours = jax.grad(lambda *args: jnp.sum(product(*args) * weight), (0, 1))(x, kernel)
    want = jax.grad(lambda x, kernel: jnp.sum((x @ kernel) * weight), (0, 1))(x, kernel)
    for got, true in zip(ours, want, strict=True):
        np.testing.assert_allclose(got, true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_in_16_bits_are_summed_in_float32_on_a_cpu(dtype):
    keys = jax.random.split(jax.random.key(1), 2)
    shapes = (2, 3, 640), (640, 5)
    x, kernel = (jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True))
    got = jax.jit(lambda x, kernel: (product(x, kernel), jax.vjp(product, x, kernel)[1]))
    y, backward = got(x, kernel)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    want, wide_backward = jax.vjp(product, *wide)
    pairs = zip((y, *backward(y)), (want, *wide_backward(y.astype(jnp.float32))), strict=True)
    for result, true in pairs:
        assert result.dtype == dtype
        error = np.abs(np.asarray(result, np.float32) - true) / np.abs(true).max()
        assert error.max() < 2 * float(jnp.finfo(dtype).eps)


def test_partial_sums_travel_in_16_bits_elsewhere():
    x, kernel = jnp.ones((3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    programs = {
        name: jax.export.export(jax.jit(product), platforms=[name])(x, kernel).mlir_module()
        for name in ("cpu", "tpu")
    }
    assert "-> tensor<3x5xf32>" in programs["cpu"]
    assert "xf32>" not in programs["tpu"]
