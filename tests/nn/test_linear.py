import jax
import jax.numpy as jnp
import numpy as np

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
