"""Captions as sentences become the phrases that prompts are."""

import pytest

from sam_audio_jax.data.phrases import noun_verb_phrase
from sam_audio_jax.data.source import embedded, load_manifest

PHRASES = {
    "A dog is barking loudly in the distance.": "dog barking",
    "The sound of a dog barking": "dog barking",
    "Birds chirp while a man speaks": "birds chirping and man speaking",
    "A woman talks, then a gate slams": "woman talking, then gate slamming",
    "There is a baby that is crying": "baby crying",
    "Rain falling heavily on a tin roof": "rain falling on tin roof",
    "People are being applauded": "people being applauded",
    "Someone plays the violin": "someone playing violin",
    "A clock ticks repeatedly, and church bells ring": "clock ticking, and church bells ringing",
    "a butterfly flies by": "butterfly flies by",
    "Loudly": "loudly",
    "A train horn can be noticed.": "train horn",
}


@pytest.mark.parametrize(("caption", "phrase"), PHRASES.items())
def test_a_sentence_becomes_a_phrase_that_stays_as_it_is(caption, phrase):
    assert noun_verb_phrase(caption) == phrase
    assert noun_verb_phrase(phrase) == phrase


def test_captions_that_are_phrases_keep_their_words():
    captions = {one.caption for one in load_manifest(embedded())}
    for caption in captions:
        phrase = noun_verb_phrase(caption)
        assert phrase
        assert noun_verb_phrase(phrase) == phrase
        assert set(phrase.split()) <= set(caption.lower().split()), caption
