"""The loss of refined stems: the refinement's own error, its excerpt, and what it can gain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sam_audio_jax.codec.chunked import decoder_context
from sam_audio_jax.convert.load import load_codec
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.infer.refine import RefineConfig, wiener
from sam_audio_jax.separator.refined_loss import RefinedConfig, refined_error_db

RATE, SECONDS = 16_000, 2.0
CONFIG = RefinedConfig(weight=1.0, seconds=60.0)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def codec():
    return load_codec("tiny")


@pytest.fixture(scope="module")
def stems():
    """Two mixtures of recordings, `[2, 2, samples]`, each where its target sounds."""
    bench, rows = load_bench("embedded"), []
    for item in [one for one in bench.mixtures if one.setting == "speech"][:2]:
        rendered = render(bench, item).resampled(RATE)
        start = round(item.spans[0][0] * RATE)
        cut = slice(start, start + round(SECONDS * RATE))
        rows.append(np.stack([rendered.target[cut], rendered.residual[cut]]))
    return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="module")
def latents(codec, stems):
    return jnp.concatenate([codec.encode(jnp.asarray(stems[:, n])) for n in (0, 1)], axis=-1)


@pytest.fixture(scope="module")
def error_of(codec):
    """`refined_error_db` of latents, stems and a key, compiled for each config."""
    graph, weights = nnx.split(codec)

    def error(config):
        def call(latents, stems, key=KEY):
            return refined_error_db(nnx.merge(graph, weights), latents, stems, key, config)

        return jax.jit(call)

    return error


@pytest.mark.parametrize("exponent", [0.45, 1.2])
def test_it_is_the_error_of_the_refined_target(codec, latents, stems, error_of, exponent):
    decoded = [np.asarray(codec.decode(part)) for part in jnp.split(latents, 2, axis=-1)]
    refinement = RefineConfig(exponent=exponent)
    expected = []
    for row, (target, residual) in enumerate(stems):
        refined, _ = wiener(
            (target + residual)[None],
            *(wave[row] for wave in decoded),
            sample_rate=RATE,
            stem_rate=RATE,
            config=refinement,
        )
        weaker = min(np.square(target).mean(), np.square(residual).mean())
        expected.append(10 * np.log10(np.square(refined[0] - target).mean() / weaker))
    config = dataclasses.replace(CONFIG, exponent=exponent)
    _, ours = error_of(config)(latents, stems)
    assert float(ours) == pytest.approx(np.mean(expected), abs=0.3)


def test_an_excerpt_has_the_error_that_it_has_in_the_whole(codec, latents, stems, error_of):
    config = dataclasses.replace(CONFIG, seconds=0.4)
    key = jax.random.key(3)
    gradient = jax.grad(lambda one: error_of(config)(one, stems, key)[0])(latents)
    sounding = np.flatnonzero(np.abs(np.asarray(gradient)).max(axis=(0, 2)) > 0)
    context = decoder_context(codec.config)
    assert len(sounding) <= 10 + 2 * context < latents.shape[1]
    # What lies beyond the excerpt and its context has no effect, not even on how it is decoded.
    changed = np.asarray(latents).copy()
    changed[:, : sounding[0]] += 1
    changed[:, sounding[-1] + 1 :] -= 1
    np.testing.assert_allclose(
        error_of(config)(jnp.asarray(changed), stems, key), error_of(config)(latents, stems, key)
    )
    places = {
        tuple(np.flatnonzero(np.abs(np.asarray(grad)).max(axis=(0, 2)) > 0)[[0, -1]])
        for grad in (
            jax.grad(lambda one, k=k: error_of(config)(one, stems, jax.random.key(k))[0])(latents)
            for k in range(4)
        )
    }
    assert len(places) > 1


def test_an_absent_sound_and_silence_have_finite_gradients(latents, stems, error_of):
    silent = np.zeros_like(stems[0])
    absent = np.stack([silent[0], stems[0].sum(axis=0)])
    rows = jnp.asarray(np.stack([silent, absent]))
    error = error_of(CONFIG)
    loss, gradient = jax.value_and_grad(lambda one: error(one, rows)[0])(latents)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient[0]).any()  # nothing to separate
    assert np.asarray(gradient[1]).any()


def test_latents_can_be_better_for_a_mask_than_those_of_the_true_stems(latents, stems, error_of):
    error = error_of(CONFIG)
    step = jax.jit(jax.value_and_grad(lambda one: error(one, stems)[0]))
    optimizer = optax.adam(0.02)
    state, learned = optimizer.init(latents), latents
    for _ in range(20):
        _, gradient = step(learned)
        updates, state = optimizer.update(gradient, state)
        learned = optax.apply_updates(learned, updates)
    assert float(error(learned, stems)[1]) < float(error(latents, stems)[1]) - 1.0
