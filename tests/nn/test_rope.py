import jax
import jax.numpy as jnp
import numpy as np

from sam_audio_jax.nn import rope


def test_scores_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    angle = rope.angles(12, 8, 10_000.0)

    def score(i, j):
        return jnp.sum(rope.rotate(q, angle[i : i + 1]) * rope.rotate(k, angle[j : j + 1]))

    np.testing.assert_allclose(score(7, 4), score(11, 8), rtol=1e-5)


def test_rotation_keeps_lengths_and_dtype():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 8)).astype(jnp.bfloat16)
    rotated = rope.rotate(x, rope.angles(5, 8, 20_000.0))
    assert rotated.dtype == jnp.bfloat16
    want = jnp.linalg.norm(x.astype(jnp.float32), axis=-1)
    np.testing.assert_allclose(
        jnp.linalg.norm(rotated.astype(jnp.float32), axis=-1), want, rtol=2e-2
    )


def test_traced_angles_rotate_like_constant_ones():
    x, angle = jax.random.normal(jax.random.key(0), (1, 9, 2, 8)), rope.angles(9, 8, 10_000.0)
    traced = jax.jit(rope.rotate)(x, jnp.asarray(angle))
    np.testing.assert_allclose(traced, rope.rotate(x, angle), atol=1e-6)
