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
from sam_audio_jax.errors import UserError
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.train.objective import make_separator_training, to_latents

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
FRAMES, TOKENS = 6, 8


@pytest.fixture(scope="module")
def codec():
    return Codec(TINY.codec, rngs=nnx.Rngs(3))


def batch():
    rng = np.random.default_rng(0)
    target, residual = rng.normal(size=(2, 8, FRAMES * TINY.codec.hop)).astype(np.float32)
    return {
        "mixture": target + residual,
        "target": target,
        "residual": residual,
        "valid": np.ones((8, FRAMES), bool),
        "text_ids": rng.integers(3, 200, size=(8, TOKENS)).astype(np.int32),
        "text_mask": np.ones((8, TOKENS), bool),
        "anchor_ids": np.tile(np.array([[0, 3, 1]], np.int32), (8, 1)),
        "anchor_alignment": np.zeros((8, FRAMES), np.int32),
    }


def prepare(codec, config=TINY, start=None):
    mesh = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
    state, step, weights = make_separator_training(config, codec, mesh, start)
    return state, jax.jit(step), weights


def test_waves_and_their_latents_give_the_same_step_and_the_loss_falls(codec):
    state, step, weights = prepare(codec)
    waves = batch()
    latents = dict(
        zip(
            ("mixture", "target", "residual"), to_latents(codec, jax.device_put(waves)), strict=True
        )
    )
    first, metrics = step(state, waves, weights)
    _, again = step(state, waves | jax.device_get(latents), weights)
    np.testing.assert_allclose(metrics["loss"], again["loss"], rtol=1e-5)
    losses = [float(metrics["loss"])]
    for _ in range(60):
        first, metrics = step(first, waves, weights)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


def test_every_part_learns_unless_the_text_encoder_is_frozen(codec):
    def moved(state, after):
        change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, after.params)
        return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(change)}

    optim = dataclasses.replace(TINY.optim, weight_decay=0.0, warmup_steps=0)
    for train_text in (True, False):
        config = dataclasses.replace(TINY, train_text=train_text, optim=optim)
        state, step, weights = prepare(codec, config)
        after = state
        for _ in range(3):  # small weights at the end let gradients through only after a step
            after, _ = step(after, batch(), weights)
        change = moved(state, after)
        assert any(v > 0 for k, v in change.items() if "text_encoder" in k) == train_text
        still = [k for k, v in change.items() if v == 0 and "text_encoder" not in k]
        assert not [k for k in still if "video" not in k and "anchors" not in k], still


def test_a_codec_of_other_sizes_is_the_users_error(codec):
    other = dataclasses.replace(TINY.codec, latent_dim=16)
    config = dataclasses.replace(TINY, codec=other, codec_checkpoint="mine")
    with pytest.raises(UserError, match="codec_checkpoint=mine has latent_dim 8, the config 16"):
        prepare(codec, config)


def test_training_goes_on_from_given_weights(codec):
    start = PromptedSeparator(TINY.text, TINY.separator, rngs=nnx.Rngs(9))
    state, _, _ = prepare(codec, start=start)
    equal = jax.tree.map(
        lambda a, b: bool((a == b).all()), state.params, nnx.as_pure(nnx.state(start))
    )
    assert all(jax.tree.leaves(equal))
    smaller = dataclasses.replace(TINY.text, mlp=4)
    with pytest.raises(UserError, match="init_from has another text encoder"):
        prepare(codec, start=PromptedSeparator(smaller, TINY.separator, rngs=nnx.Rngs(9)))
