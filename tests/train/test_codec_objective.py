import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sam_audio_jax.cli import train_codec
from sam_audio_jax.codec import loss
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.discriminator import Discriminator, DiscriminatorConfig
from sam_audio_jax.codec.loss import CodecLossConfig
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_json
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train.codec_objective import METRICS, evaluate_codec, make_codec_training
from sam_audio_jax.train.config import CodecTrainConfig, GanOptimConfig
from sam_audio_jax.workdir import Workdir
from tests.tiny import filled

SCALES = ((32, 5), (128, 20))
CODEC = CodecConfig(
    sample_rate=8_000,
    encoder_dim=4,
    encoder_rates=(4,),
    latent_dim=8,
    decoder_dim=8,
    decoder_rates=(4,),
    codebook_dim=4,
    watermark_rates=(),
)
DISCRIMINATOR = DiscriminatorConfig(periods=(2,), period_widths=(4,), windows=())
START = 2  # step at which the discriminator begins


def experiment(**weights):
    weights = {"kl": 1e-3, "adversarial_start": START} | weights
    return CodecTrainConfig(
        codec=CODEC,
        loss=CodecLossConfig(mel_scales=SCALES, stft_windows=(128,), **weights),
        discriminator=DISCRIMINATOR,
        optim=GanOptimConfig(peak_lr=3e-3),
        batch=4,
    )


@functools.cache
def started(**weights):
    state, step = make_codec_training(experiment(**weights))
    return state, jax.jit(step)


def tones(rows=4, samples=512):
    rng = np.random.default_rng(0)
    time = np.arange(samples) / CODEC.sample_rate
    waves = np.sin(2 * np.pi * rng.uniform(200, 2000, (rows, 1)) * time)
    return {"wave": jnp.asarray(0.3 * waves, jnp.float32)}


def at(state, step):
    return dataclasses.replace(state, step=jnp.int32(step))


def equal(a, b):
    a, b = jax.device_get((a, b))
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def run(steps, **weights):
    state, step = started(**weights)
    seen = []
    for _ in range(steps):
        state, metrics = step(state, tones())
        seen.append(jax.device_get(metrics))
    return state, seen


def test_starts_from_a_codec_of_another_latent_scale():
    config = dataclasses.replace(CODEC, mean=0.5, std=2.0)
    codec = filled(lambda: Codec(config, rngs=Rngs(0)))
    state, _ = make_codec_training(experiment(), codec)
    assert equal(state.params["generator"], nnx.as_pure(nnx.state(codec)))
    assert equal(state.ema["generator"], nnx.as_pure(nnx.state(codec)))


def test_latents_that_stay_keep_the_scale_that_separators_know(tmp_path, monkeypatch):
    """With a frozen encoder; else they get that of held-out excerpts."""
    config = dataclasses.replace(CODEC, mean=0.5, std=2.0)
    codec = filled(lambda: Codec(config, rngs=Rngs(0)))
    waves = {"wave": np.asarray(tones()["wave"])}
    monkeypatch.setattr(train_codec, "load_codec", lambda name: codec)
    monkeypatch.setattr(train_codec, "excerpts", lambda *_, **__: itertools.repeat(waves))
    workdir = Workdir(tmp_path)
    for frozen, kept in ((("encoder", "in_proj"), {"mean": 0.5, "std": 2.0}), (("encoder",), None)):
        cfg = dataclasses.replace(experiment(adversarial=0.0), init_from="start", frozen=frozen)
        start, scale = train_codec.initial_codec(cfg)
        assert scale == kept
        state, _ = make_codec_training(cfg, start)
        found = train_codec.evaluation(workdir, cfg, scale)(state, 1, True)
        measured = {"mean": found["latent_mean"], "std": found["latent_std"]}
        assert read_json(workdir.latents_file) == (kept or measured)


def test_refuses_a_start_of_other_sizes_and_odd_rates():
    config = dataclasses.replace(CODEC, latent_dim=16, codebook_dim=2)
    codec = filled(lambda: Codec(config, rngs=Rngs(0)))
    with pytest.raises(UserError, match="latent_dim 16 instead of 8; codebook_dim 2 instead of 4"):
        make_codec_training(experiment(), codec)
    odd = dataclasses.replace(CODEC, encoder_rates=(5,), decoder_rates=(5,))
    with pytest.raises(UserError, match="even rates only"):
        CodecTrainConfig(codec=odd)


@pytest.mark.parametrize("weights", [{}, {"adversarial": 0.0}])
def test_loss_falls_in_30_steps(weights):
    _, seen = run(30, **weights)
    assert np.mean([m["mel"] for m in seen[-5:]]) < 0.8 * np.mean([m["mel"] for m in seen[:5]])
    assert not any(m["skipped"] for m in seen)


def test_without_adversarial_weight_no_discriminator_exists():
    state, _ = started(adversarial=0.0)
    assert set(state.params) == set(state.opt_state) == set(state.ema) == {"generator"}


def test_same_state_same_batch_same_result_and_each_step_another_sample():
    state, step = started()
    first, metrics = step(at(state, 5), tones())
    again, _ = step(at(state, 5), tones())
    assert equal(first.params, again.params)
    assert float(step(at(state, 6), tones())[1]["loss"]) != float(metrics["loss"])


@pytest.mark.parametrize("now", [0, START])
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(now):
    state, step = started()
    after, metrics = step(at(state, now), {"wave": jnp.full((4, 512), jnp.nan)})
    assert bool(metrics["skipped"])
    assert equal(
        (state.params, state.ema, state.opt_state), (after.params, after.ema, after.opt_state)
    )
    assert int(after.step) == now + 1


def test_a_discriminator_that_is_not_finite_stops_the_generator_too():
    state, step = started()
    broken = jax.tree.map(
        lambda x: np.full(x.shape, np.nan, x.dtype), state.params["discriminator"]
    )
    state = dataclasses.replace(state, params=state.params | {"discriminator": broken})
    after, metrics = step(at(state, START), tones())
    assert bool(metrics["skipped"])
    assert equal(state.params["generator"], after.params["generator"])


def test_the_discriminator_waits_for_its_start_and_until_then_the_step_is_the_plain_one():
    state, step = started()
    _, plain = started(adversarial=0.0)
    ours, metrics = step(state, tones())
    assert equal(ours.params["discriminator"], state.params["discriminator"])
    assert float(metrics["adversarial"]) == float(metrics["discriminator"]) == 0
    alone = dataclasses.replace(
        state,
        params={"generator": state.params["generator"]},
        opt_state={"generator": state.opt_state["generator"]},
    )
    theirs, _ = plain(alone, tones())
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, ours.params["generator"], theirs.params["generator"])


def test_a_discriminator_that_starts_at_once_needs_no_switch():
    state, step = make_codec_training(experiment(adversarial_start=0))
    text = str(jax.make_jaxpr(step)(state, tones()))
    assert "cond[" not in text


def test_the_step_equals_its_definition():
    """Two separate gradients, each of its own loss for its own weights, in DAC's order."""
    state, step = started()
    wave = tones()["wave"]
    graph = nnx.graphdef(nnx.eval_shape(lambda: Codec(CODEC, rngs=Rngs(0))))
    critic = nnx.graphdef(nnx.eval_shape(lambda: Discriminator(DISCRIMINATOR, rngs=Rngs(0))))

    def generate(params):
        codec = nnx.merge(graph, params)
        mean, stdev = codec.moments(wave)
        key = jax.random.fold_in(state.key, START)
        fake = codec.decode(mean + stdev * jax.random.normal(key, mean.shape))
        return fake, loss.kl(mean, stdev)

    def discriminator_loss(params):
        discriminator = nnx.merge(critic, params)
        fake = jax.lax.stop_gradient(generate(state.params["generator"])[0])
        return loss.discriminator_loss(discriminator(wave), discriminator(fake))

    def adamw(clip):
        adam = optax.adamw(3e-3, b1=0.8, b2=0.99, weight_decay=0.01)
        return optax.chain(optax.clip_by_global_norm(clip), adam)

    def moved(objective, params, clip):
        tx = adamw(clip)
        updates, _ = tx.update(jax.grad(objective)(params), tx.init(params), params)
        return optax.apply_updates(params, updates)

    def generator_loss(params, discriminator):
        fake, kl = generate(params)
        real, generated = (nnx.merge(critic, discriminator)(x) for x in (wave, fake))
        terms = loss.adversarial_loss(generated) + 2 * loss.feature_matching_loss(real, generated)
        return 15 * loss.mel_loss(wave, fake, CODEC.sample_rate, SCALES) + 1e-3 * kl + terms

    @jax.jit
    def both(params):
        discriminator = moved(discriminator_loss, params["discriminator"], 10)
        return discriminator, moved(
            lambda p: generator_loss(p, discriminator), params["generator"], 1000
        )

    discriminator, generator = both(state.params)
    after, _ = step(at(state, START), tones())
    close = functools.partial(np.testing.assert_allclose, atol=2e-4)
    jax.tree.map(close, after.params["discriminator"], discriminator)
    jax.tree.map(close, after.params["generator"], generator)


def test_the_rate_decays_and_the_average_follows():
    state, _ = run(3, adversarial=0.0)
    assert not equal(state.ema, state.params)
    counts = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 0]
    assert counts
    assert all(int(count) == 3 for count in counts)


def any_codec():
    state, _ = started(adversarial=0.0)
    graph = nnx.graphdef(nnx.eval_shape(lambda: Codec(CODEC, rngs=Rngs(0))))
    moved = jax.tree.map(lambda x: 1.1 * np.asarray(x), state.params["generator"])
    return nnx.merge(graph, moved)


def test_training_can_start_from_a_codec():
    codec = any_codec()
    state, _ = make_codec_training(experiment(adversarial=0.0), codec)
    assert equal(state.params["generator"], nnx.as_pure(nnx.state(codec)))


def test_evaluation_averages_over_rows_of_all_batches():
    waves = np.asarray(tones(rows=6)["wave"])
    config = experiment().loss
    parts = [evaluate_codec(any_codec(), [waves[i : i + 2]], config) for i in (0, 2, 4)]
    whole = evaluate_codec(any_codec(), [waves[:2], waves[2:4], waves[4:]], config)
    assert set(whole) == set(METRICS)
    for name, value in whole.items():
        np.testing.assert_allclose(np.mean([part[name] for part in parts]), value, rtol=1e-5)


def test_evaluation_of_nothing_is_refused():
    with pytest.raises(UserError, match="no recordings"):
        evaluate_codec(any_codec(), [])


def test_frozen_parts_stay_and_the_others_learn_to_mask():
    codec = filled(lambda: Codec(CODEC, rngs=Rngs(0)))
    config = experiment(adversarial=0.0, mask=1.0)
    config = dataclasses.replace(config, frozen=("encoder", "in_proj"), init_from="named")
    state, step = make_codec_training(config, codec)
    new, metrics = jax.jit(step)(state, tones())
    assert np.isfinite(metrics["mask_db"])
    before, after = state.params["generator"], new.params["generator"]
    kept = {name: equal(before[name], after[name]) for name in before}
    assert kept == {"encoder": True, "in_proj": True, "out_proj": False, "decoder": False}
    with pytest.raises(UserError, match="frozen has encoder, but init_from names no weights"):
        dataclasses.replace(config, init_from="")
    with pytest.raises(UserError, match="batch=1 must be 2 or more"):
        dataclasses.replace(config, batch=1)
