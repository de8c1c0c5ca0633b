"""The audio tower: vectors that padding, silence and gain do not change, beside means of words."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.encoders.audio_embedder import AudioEmbedder
from sam_audio_jax.encoders.audio_tower import AudioTower
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.encoders.text_means import TextMeans, mean_of_words, unit
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.audio_text import AudioTextScorer
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests import audio_text, tiny


@pytest.fixture(scope="module")
def embedder():
    tower = audio_text.tower()
    return AudioEmbedder(audio_text.codec(), tower, frames=audio_text.FRAMES)


def test_padding_changes_no_vector():
    tower, rng = audio_text.tower(), np.random.default_rng(0)
    latents = rng.standard_normal((2, 9, 8)).astype(np.float32)
    valid = np.arange(9) < np.array([[9], [6]])
    padded = np.full((2, 14, 8), 7.0, np.float32)
    padded[:, :9] = np.where(valid[:, :, None], latents, -3.0)
    mask = np.zeros((2, 14), bool)
    mask[:, :9] = valid
    run = Compiled(tower)
    vectors = np.asarray(run(AudioTower.__call__, padded, mask))
    shorter = np.asarray(run(AudioTower.__call__, latents, valid))
    np.testing.assert_allclose(vectors, shorter, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    other = run(AudioTower.__call__, -latents, valid)
    assert np.abs(shorter - np.asarray(other)).max() > 0.01
    words = np.asarray(tower.as_words(jnp.asarray(vectors)))
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1.5, atol=1e-6)


def test_a_recording_is_its_loud_pieces(embedder):
    rng = np.random.default_rng(0)
    piece = audio_text.FRAMES * audio_text.HOP
    sound = 0.1 * rng.standard_normal(piece).astype(np.float32)
    silence = np.zeros(2 * piece, np.float32)
    vectors = embedder([sound, 0.25 * sound, np.concatenate([sound, silence]), silence[:5]])
    np.testing.assert_allclose(vectors[1:3], vectors[:1].repeat(2, 0), atol=1e-4)
    np.testing.assert_array_equal(vectors[3], 0)
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, atol=1e-6)
    other = 0.1 * rng.standard_normal(piece // 2).astype(np.float32)
    first, second, both = embedder([sound, other, np.concatenate([sound, other])])
    energies = [np.linalg.norm(wave) for wave in (sound, other)]
    np.testing.assert_allclose(both, unit(energies[0] * first + energies[1] * second), atol=2e-3)


def test_the_scorer_has_the_cosines_of_the_protocol(embedder):
    texts = audio_text.means()
    scorer = AudioTextScorer(embedder, texts)
    assert isinstance(scorer, Scorer)
    rng = np.random.default_rng(1)
    waves = 0.1 * rng.standard_normal((2, 2, 9_000)).astype(np.float32)
    lengths = np.array([9_000, 5_000])
    waves[1, :, 5_000:] = 0
    views = [PromptView(text="a dog"), PromptView(text="RAIN.")]
    scores = scorer.score(waves[:, 0], waves, lengths, 16_000, views)["audio_text"]
    assert scores.shape == (2, 2)
    vectors = scorer.embed_waves([waves[1, 1, :5_000]], 16_000)
    np.testing.assert_allclose(scores[1, 1], vectors[0] @ unit(texts(["rain"]))[0], atol=1e-5)


def test_a_text_is_the_mean_of_its_words_without_its_end():
    model = audio_text.prompted()
    table = np.asarray(model.text_encoder.embed.embedding[...])
    means = audio_text.means(model)(["ab", "A", "?"])
    rows = [ord("a") + 3, ord("b") + 3]  # ids of bytes begin after three others
    np.testing.assert_allclose(means[0], table[rows].mean(0), atol=1e-6)
    np.testing.assert_allclose(means[1], table[rows[0]], atol=1e-6)
    np.testing.assert_array_equal(means[2], 0)
    ids, mask = tokenizer_for("byt5")(["ab", ""])
    states = jnp.asarray(table[ids])
    np.testing.assert_allclose(mean_of_words(states, jnp.asarray(mask))[0], means[0], atol=1e-6)
    encoder = tiny.filled(lambda: T5Encoder(tiny.TEXT, rngs=Rngs(0)))
    with pytest.raises(UserError, match="a text encoder of 1 layers does not have"):
        TextMeans(encoder, tokenizer_for("byt5"))


def test_a_tower_of_another_codec_or_of_other_vectors_is_refused():
    space, means = audio_text.space(), audio_text.means()
    space.check(audio_text.codec(), means, "the tower")
    with pytest.raises(UserError, match="the tower was trained on the latents of another codec"):
        space.check(audio_text.codec(seed=1), means, "the tower")
    means.table = means.table[::-1]
    with pytest.raises(UserError, match="among the word vectors of another text encoder"):
        space.check(audio_text.codec(), means, "the tower")
