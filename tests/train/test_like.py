"""Prompts by example in the separator's training: what stands in the memory, and whose tower."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import parallel
from sam_audio_jax.convert.audio_tower import save_audio_tower
from sam_audio_jax.encoders.text_means import unit
from sam_audio_jax.errors import UserError
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.train.config import LikeConfig, TrainConfig
from sam_audio_jax.train.example_prompts import blended_prompts
from sam_audio_jax.train.frozen import make_audio_tower
from sam_audio_jax.train.objective import make_separator_training
from sam_audio_jax.workdir import Workdir
from tests import audio_text, tiny

ROWS, TOKENS = 4, 5
LIKE = LikeConfig(
    share=1.0, alone=1.0, blend=0.0, dropout=0.0, tower_checkpoint="t", tower=audio_text.TOWER
)


def config(**like) -> TrainConfig:
    return TrainConfig(
        codec=tiny.CODEC,
        text=audio_text.VECTORS,
        separator=tiny.SEPARATOR,
        text_checkpoint="random",
        like=dataclasses.replace(LIKE, **like),
        batch=2,
        mesh=MeshConfig(fsdp=1),
    )


@pytest.fixture(scope="module")
def batch():
    """Latents and texts; row 1 is prompted for an absent sound, row 2 has no text."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    stems = {name: draw(ROWS, 6, 8) for name in ("mixture", "target", "residual")}
    stems["residual"][1] = stems["mixture"][1]
    tokens = np.array([3, 4, 1, 5])[:, None]
    mask = np.arange(TOKENS) < tokens
    arrays = (stems, np.ones((ROWS, 6), bool), draw(ROWS, TOKENS, 16), mask)
    return jax.tree.map(jnp.asarray, arrays)


def test_the_vector_of_the_target_stands_in_the_place_of_the_text(batch):
    tower = audio_text.tower()
    sounds = np.asarray(jax.jit(lambda x, v: tower(x, v))(batch[0]["target"], batch[1]))

    @jax.jit
    def run(key):
        return [
            blended_prompts(
                *(tower, batch[0], batch[1], batch[2], batch[3], key),
                dataclasses.replace(LIKE, **changes),
            )
            for changes in ({}, {"alone": 0.0, "blend": 1.0}, {"share": 0.5})
        ]

    (text, mask), (blended, joined), (_, some) = run(jax.random.key(0))
    np.testing.assert_array_equal(text[:, :-1], batch[2])
    np.testing.assert_allclose(text[:, -1], 1.5 * sounds, atol=1e-5)
    expected = np.zeros((ROWS, TOKENS + 1), bool)
    for row, end in ((0, 2), (2, 0), (3, 4)):  # the end of the text, and the example
        expected[row, [end, TOKENS]] = True
    expected[1, :4] = True  # silence is no example
    np.testing.assert_array_equal(mask, expected)
    expected[:, :-1] = batch[3]
    np.testing.assert_array_equal(joined, expected)
    np.testing.assert_allclose(blended[2, -1], text[2, -1], atol=1e-5)  # nothing to blend with
    mean = unit(np.asarray(batch[2][0, :2]).mean(0))
    plane = np.linalg.lstsq(np.stack([mean, sounds[0]], 1), blended[0, -1], rcond=None)[0]
    assert (plane > 0).all()
    np.testing.assert_allclose(plane @ np.stack([mean, sounds[0]]), blended[0, -1], atol=1e-4)
    rows = [run(jax.random.key(seed))[2][1][:, -1] for seed in range(20)]
    assert 0.3 < np.mean([row[jnp.array([0, 2, 3])] for row in [*rows, some[:, -1]]]) < 0.7


def test_a_step_takes_the_tower_among_its_frozen_weights():
    cfg = config()
    mesh = parallel.make_mesh(cfg.mesh, jax.devices()[:1])
    codec, start = audio_text.codec(), audio_text.prompted()
    with pytest.raises(UserError, match="and no audio tower is given"):
        make_separator_training(cfg, codec, mesh, start)
    tower = audio_text.tower()
    state, step, frozen = make_separator_training(cfg, codec, mesh, start, audio_tower=tower)
    assert set(frozen) == {"codec", "audio_tower"}
    latents = jnp.zeros((2, 6, 8))
    batch = dict.fromkeys(("mixture", "target", "residual"), latents)
    batch |= {"valid": jnp.ones((2, 6), bool), "anchors": jnp.zeros((2, 6), jnp.int32)}
    batch |= {"text_ids": jnp.zeros((2, 4), jnp.int32), "text_mask": jnp.ones((2, 4), bool)}
    after, _ = jax.eval_shape(step, state, batch, frozen)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_a_run_keeps_its_tower_and_refuses_one_of_another_codec(tmp_path):
    save_audio_tower(tmp_path / "tower", audio_text.stored_tower())
    cfg, workdir = config(tower_checkpoint=str(tmp_path / "tower")), Workdir(tmp_path / "run")
    start = audio_text.prompted()
    tower = make_audio_tower(workdir, cfg, audio_text.codec(), start)
    assert tower is not None
    assert (workdir.audio_tower / "model.safetensors").is_file()
    with pytest.raises(UserError, match="was trained on the latents of another codec"):
        make_audio_tower(workdir, cfg, audio_text.codec(seed=1), start)
    learned = audio_text.prompted()  # of a model whose text encoder was trained: a single vector
    learned.text_encoder.embed.embedding[...] = start.text_encoder.embed.embedding[...].at[9].add(1)
    with pytest.raises(UserError, match="was trained among other word vectors: these have learned"):
        make_audio_tower(workdir, cfg, audio_text.codec(), learned)
    other = dataclasses.replace(
        audio_text.TOWER, audio=dataclasses.replace(audio_text.TOWER.audio, mlp=32)
    )
    cfg = config(tower_checkpoint=str(tmp_path / "tower"), tower=other)
    with pytest.raises(UserError, match="has mlp 24 instead of 32"):
        make_audio_tower(workdir, cfg, audio_text.codec(), start)
    assert make_audio_tower(workdir, config(share=0.0), audio_text.codec(), start) is None
    assert not workdir.audio_tower.exists()  # a start without examples, before any checkpoint


def test_examples_need_a_tower_among_frozen_word_vectors():
    cfg = config()
    with pytest.raises(UserError, match=r"needs an audio tower: name one by like\.tower_check"):
        config(tower_checkpoint="")
    with pytest.raises(UserError, match=r"needs frozen word vectors: text\.depth=0 must be 0 and"):
        dataclasses.replace(cfg, train_text=True)
    with pytest.raises(UserError, match=r"like\.tower\.channels=9 must equal separator\.channels"):
        config(tower=dataclasses.replace(audio_text.TOWER, channels=9))
