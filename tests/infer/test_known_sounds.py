"""A prompt that is far from every caption of the training is said to be unknown, and only that."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.known_sounds import KnownConfig, KnownSounds
from sam_audio_jax.nn.rngs import Rngs

WORDS = ("</s>", "dog", "hound", "barking", "piano", "the")
VECTORS = np.array([[9, 9, 9], [4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 0, 5], [0, 0, 0.1]], np.float32)
SIZES = T5Config(vocab_size=6, width=3, head_dim=1, heads=1, mlp=1, depth=0)
CONFIG = KnownConfig(texts=("dog barking", "hound"), least_cosine=0.8)


def tokenize(texts, length=None):
    rows = [[*(WORDS.index(word) for word in text.split()), 0] for text in texts]
    longest = max(map(len, rows))
    ids = np.array([row + [0] * (longest - len(row)) for row in rows])
    return ids, np.array([[n < len(row) for n in range(longest)] for row in rows])


def word_vectors():
    encoder = T5Encoder(SIZES, rngs=Rngs(0))
    encoder.embed.embedding[...] = jnp.asarray(VECTORS)
    return encoder


def test_what_is_near_a_caption_is_known_and_little_words_hardly_count():
    sounds = KnownSounds(CONFIG, word_vectors(), tokenize)
    assert sounds.nearest("dog barking") == ("dog barking", pytest.approx(1))
    assert sounds.nearest("the hound barking")[0] == "dog barking"
    for known in ("dog", "the dog barking", "hound barking"):
        assert sounds.note(known) is None
    note = sounds.note("piano")
    assert "'piano' is no sound that the model has learned" in note
    assert "with a span" in note


def test_an_encoder_with_layers_and_an_empty_list_are_refused():
    layers = T5Encoder(dataclasses.replace(SIZES, depth=1), rngs=Rngs(0))
    with pytest.raises(UserError, match="a text encoder of 1 layers does not have"):
        KnownSounds(CONFIG, layers, tokenize)
    with pytest.raises(UserError, match=r"known\.texts is empty"):
        KnownConfig(texts=())


@pytest.mark.parametrize(
    ("spans", "noted"),
    [
        ((), True),
        ([("+", 0.1, 0.3)], False),
        ([("+", 0.1001, 0.1002)], True),  # no frame begins in it
        ([("+", 0.1001, 0.1002), ("-", 0.3, 0.4)], False),
    ],
)
def test_only_spans_with_an_effect_take_the_place_of_a_known_text(
    model, noise_of, monkeypatch, spans, noted
):
    known = types.SimpleNamespace(note=lambda text: f"{text} is unknown")
    monkeypatch.setattr(model.pipeline, "known", known)
    item = model.item(noise_of(0.5), "dog", spans, sample_rate=model.sample_rate)
    assert any("dog is unknown" in note for note in item.recording.notes) == noted
