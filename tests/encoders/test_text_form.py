"""A text is asked for in many spellings; our models read one of them, that of their captions."""

import random
import sys

import numpy as np
import pytest

from sam_audio_jax.data.source import embedded, load_manifest
from sam_audio_jax.encoders.text_form import find_surrogate, has_words, normalize
from sam_audio_jax.encoders.tokenizer import MAX_TOKENS, tokenizer_for


@pytest.mark.parametrize(
    "text",
    [
        'dog\'s "bark" in a café',
        '  Dog\'s "bark"\tin\n a CAFÉ.',
        "dog\u2019s \u201cbark\u201d in a cafe\u0301 ...",
        'dog\'s\u00a0"bark" in\u2003a\u200b caf\u00e9\ufeff',
        '\uff44og\'s "bark" i\u00adn a café\u2026',
    ],
)
def test_spellings_of_one_text_have_one_form(text):
    assert normalize(text) == 'dog\'s "bark" in a café'


def test_captions_are_in_the_form_already():
    for recording in load_manifest(embedded()):
        for text in (recording.caption, *recording.alt_captions):
            assert normalize(text) == text


def test_a_form_is_its_own_form():
    rng = random.Random(0)
    for _ in range(2_000):
        text = "".join(
            chr(rng.randrange(rng.choice((128, 0x3000, sys.maxunicode)))) for _ in "12345"
        )
        form = normalize(text)
        assert normalize(form) == form
        assert form == form.strip()


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "\u200b\u2026", "\n\t-"])
def test_spaces_and_punctuation_ask_for_nothing(text):
    assert not has_words(text)
    assert normalize(text) == ""


@pytest.mark.parametrize("text", ["$$", "🐕", "犬", "C++", "ق", "7"])
def test_signs_and_letters_of_any_script_ask_for_something(text):
    assert has_words(text)
    assert normalize(text)


def test_halves_of_characters_are_found():
    assert find_surrogate("dog \ud83d") == r"\ud83d"
    assert find_surrogate("dog 🐕") == ""


def test_only_tokenizers_of_our_models_bring_texts_to_the_form():
    ours, theirs = tokenizer_for("byt5", normalizes=True), tokenizer_for("byt5")
    np.testing.assert_array_equal(ours([" Dog."])[0], ours(["dog"])[0])
    assert theirs([" Dog."])[0].shape[1] == len(" Dog.") + 1


def test_the_part_of_a_long_text_that_is_read_is_named():
    tokenizer = tokenizer_for("byt5", normalizes=True)
    assert tokenizer.describe_cut("x" * (MAX_TOKENS - 1)) == ""
    cut = tokenizer.describe_cut("x" * 500 + " dog barking loudly")
    assert cut == f"has 519 tokens, of which the first 511 are read, to {'x' * 9 + ' dog barkin'!r}"
