import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.config import from_dict
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.refined_loss import RefinedConfig
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import (
    STEMS,
    make_model,
    make_separator_training,
    separation_loss,
    to_latents,
)
from tests.tiny import filled
from tests.train.batches import FRAMES, random_batch

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]


def mesh():
    return parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def codec():
    return filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))


@pytest.fixture(scope="module")
def joint(codec):
    """Text encoder and separator trained together: state, step, codec's weights."""
    return make_separator_training(TINY, codec, mesh())


def batch():
    return random_batch(FRAMES * TINY.codec.hop)


def with_video(batch, width=TINY.separator.video_width):
    rng = np.random.default_rng(1)
    return batch | {"video": rng.normal(size=(8, FRAMES, width)).astype(np.float16)}


def random_start(text):
    return filled(lambda: PromptedSeparator(text, TINY.separator, rngs=Rngs(0)))


def test_the_loss_falls_and_every_part_learns(joint):
    start, step, weights = joint
    step = jax.jit(step)
    state, losses = start, []
    for _ in range(60):
        state, metrics = step(state, with_video(batch()), weights)
        losses.append(float(metrics["loss"]))
    assert metrics["grad_norm_video"] > 0
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start.params, state.params)
    for path, size in jax.tree_util.tree_leaves_with_path(change):
        name = jax.tree_util.keystr(path)
        assert size or "anchors" in name, name  # all null: its rows get the same gradient


def test_without_videos_their_branch_stays_as_it_was_and_is_known_to_be_untrained(joint):
    start, step, weights = joint
    state, metrics = jax.jit(step)(start, batch(), weights)
    assert metrics["grad_norm_video"] == 0
    graph = nnx.graphdef(nnx.eval_shape(lambda: make_model(TINY)))
    assert not nnx.merge(graph, state.params).separator.reads_video
    with pytest.raises(UserError, match=r"video features of 3 numbers, separator\.video_width=4"):
        jax.eval_shape(step, start, with_video(batch(), width=3), weights)


def test_a_frozen_text_encoder_has_no_moments(joint, codec):
    config = dataclasses.replace(TINY, train_text=False)
    start = random_start(TINY.text)
    state, step, weights = make_separator_training(config, codec, mesh(), start)

    def moments(state):
        return sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))

    text = sum(leaf.size for leaf in jax.tree.leaves(state.params["text_encoder"]))
    assert moments(joint[0]) - moments(state) == pytest.approx(2 * text, abs=3)
    after, _ = jax.eval_shape(step, state, batch(), weights)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_waves_are_encoded_and_latents_are_used_unchanged(codec):
    waves = jax.device_put(batch())
    latents = to_latents(codec, waves)
    np.testing.assert_allclose(latents[1], codec.encode(waves["target"]), atol=1e-5)
    named = dict(zip(("mixture", "target", "residual"), latents, strict=True))
    again = to_latents(codec, named | {"mixture": latents[0].astype(jnp.float16)})
    assert again[0].dtype == jnp.float32
    np.testing.assert_array_equal(again[2], latents[2])


def test_cached_latents_in_16_bits_have_the_loss_of_the_same_numbers_in_32(codec):
    prompted = filled(lambda: make_model(TINY))
    batch = random_batch(FRAMES, TINY.codec.codebook_dim)
    narrow = batch | {name: batch[name].astype(np.float16) for name in STEMS}
    wide = narrow | {name: narrow[name].astype(np.float32) for name in STEMS}
    loss = jax.jit(lambda x: separation_loss(prompted, codec, x, jax.random.key(0), TINY)[0])
    assert float(loss(narrow)) == float(loss(wide)) != 0


def refined(weight):
    return dataclasses.replace(
        TINY, refined=RefinedConfig(weight=weight, seconds=60.0, tolerance_db=40.0)
    )


def test_a_loss_of_refined_stems_is_added_from_waves_in_or_beside_the_batch(codec):
    prompted, key = filled(lambda: make_model(TINY)), jax.random.key(0)
    waves = jax.device_put(batch())
    loss, metrics = separation_loss(prompted, codec, waves, key, refined(0.05))
    alone, _ = separation_loss(prompted, codec, waves, key, TINY)
    assert metrics["flow"] == alone
    np.testing.assert_allclose(loss, alone + 0.05 * metrics["refined_db"], rtol=1e-5)
    cached = waves | dict(zip(STEMS, to_latents(codec, waves), strict=True))
    beside = jnp.stack([waves["target"], waves["residual"]], axis=1).astype(jnp.float16)
    again, _ = separation_loss(prompted, codec, cached | {"waves": beside}, key, refined(0.05))
    np.testing.assert_allclose(again, loss, rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data": {"cache": "latents"}},
            r"refined\.weight=0\.1 needs the waves.*--data\.waves",
        ),
        (
            {"flow": {"consistency_share": 0.2}, "separator": {"dit": {"step_size": True}}},
            r"refined\.weight=0\.1 needs velocities at one time.*consistency_share=0\.2",
        ),
        (
            {"data": {"waves": True, "labels": {"folder": "labels", "share": 1.0}}},
            r"data\.waves=True.*labels",
        ),
    ],
)
def test_a_loss_of_refined_stems_without_what_it_needs_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        from_dict(TrainConfig, {"refined": {"weight": 0.1}, **fields})


def test_a_codec_of_other_sizes_is_the_users_error(codec):
    other = dataclasses.replace(TINY.codec, latent_dim=16)
    config = dataclasses.replace(TINY, codec=other, codec_checkpoint="mine")
    with pytest.raises(UserError, match="codec_checkpoint=mine has latent_dim 8 instead of 16"):
        make_separator_training(config, codec, mesh())


def test_training_starts_from_other_weights(codec):
    start = random_start(TINY.text)
    state, _, _ = make_separator_training(TINY, codec, mesh(), start)
    equal = jax.tree.map(
        lambda a, b: bool((a == b).all()), state.params, nnx.as_pure(nnx.state(start))
    )
    assert all(jax.tree.leaves(equal))
    smaller = dataclasses.replace(TINY.text, mlp=4)
    with pytest.raises(UserError, match=r"init_from=.* has another text encoder or separator"):
        make_separator_training(TINY, codec, mesh(), random_start(smaller))
