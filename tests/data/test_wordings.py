"""Words of captions: which are near, which may be confused, and how else they are said."""

import numpy as np
import pytest

from sam_audio_jax.data import likeness, wordings
from sam_audio_jax.data.source import embedded, load_manifest
from sam_audio_jax.encoders.text_form import normalize


def test_words_without_endings_and_fillers():
    assert likeness.words("The sound of a dog barking.") == likeness.words("barking dogs")
    assert likeness.words("birds chirping") == likeness.words("bird chirps")
    assert likeness.words("fire crackling").isdisjoint(likeness.words("machine gun firing"))
    assert likeness.words("steam hissing") == likeness.words("hiss of steam")
    assert likeness.similarity("wind blowing", "wind howling") == pytest.approx(1 / 3)
    assert likeness.similarity("dog barking", "music playing") == 0


@pytest.mark.parametrize(
    ("phrase", "present", "expected"),
    [
        ("dog barking", "dog barking", True),
        ("dog", "dog barking", True),
        ("wind howling", "wind blowing", True),
        ("explosion", "distant explosion", True),
        ("blast", "explosion", True),
        ("person speaking", "man speaking french", True),
        ("speech", "people chattering in a market", True),
        ("woman speaking french", "man speaking french", True),
        ("woman speaking", "man speaking french", False),
        ("man speaking spanish", "man speaking french", False),
        ("dog barking", "cat meowing", False),
        ("piano", "violin playing", False),
    ],
)
def test_a_phrase_may_be_present_where_it_may_be_true(phrase, present, expected):
    assert likeness.Present({"rain"}, {present}).may_include(phrase) == expected


def test_only_the_finest_phrases_of_a_sound_leave_open_what_else_is_true():
    french = {"man speaking french", "speech", "man speaking", "male voice speaking"}
    french |= {"person speaking french", "person speaking"}
    voice = likeness.Present(french, {"dog barking", "dog"})
    assert not voice.may_include("woman speaking")
    assert not voice.may_include("man speaking spanish")
    for phrase in french | {"voice speaking", "man talking", "woman speaking french"}:
        assert voice.may_include(phrase)
    assert likeness.Present(french, {"speech"}).may_include("woman speaking")
    assert likeness.Present({"person speaking", "speech"}).may_include("woman speaking")


def test_near_captions_are_never_the_same_sound():
    captions = ["dog barking", "dogs barking", "dog growling", "wolf growling", "rain", "dog"]
    near = likeness.NearCaptions(captions)
    rng = np.random.default_rng(0)
    assert {captions[near.draw("dog barking", rng)] for _ in range(20)} == {"dog growling"}
    assert {captions[near.draw("dog growling", rng)] for _ in range(40)} == {
        "dog barking",
        "dogs barking",
        "wolf growling",
    }
    assert near.draw("piano playing", rng) is None


def test_wordings_keep_the_form_and_the_words_of_a_caption():
    rng = np.random.default_rng(0)
    captions = {normalize(r.caption) for r in load_manifest(embedded())}
    for caption in sorted(captions):
        for _ in range(5):
            wording = wordings.reworded(caption, (), rng)
            assert wording == normalize(wording)
            assert wording != caption
            known = [caption, *wordings.synonyms(caption)]
            assert any(likeness.words(one) <= likeness.words(wording) for one in known)


def test_articles_and_participles():
    forms = {wordings.reworded("dog barking", (), np.random.default_rng(n)) for n in range(200)}
    assert {"the sound of a dog barking", "barking dog", "dog barking noise"} <= forms
    forms = {wordings.reworded("metal banging", (), np.random.default_rng(n)) for n in range(99)}
    assert "banging metal sound" in forms
    assert not any("a banging" in form for form in forms)
    assert wordings.article("explosion") == "an "
    assert wordings.article("glass clinking") == "a "
    assert wordings.article("rain falling") == wordings.article("swords clashing") == ""


def test_a_wording_that_is_true_of_the_other_sound_is_not_used():
    others = {"walking on stone"}
    rng = np.random.default_rng(0)
    drawn = {wordings.reworded("hand clap", {"clapping", "clap"}, rng) for _ in range(100)}
    assert all("clap" in one for one in drawn)
    for _ in range(100):
        wording = wordings.reworded("man speaking french", {"male voice speaking"}, rng)
        assert likeness.words(wording) != likeness.words("male voice speaking")
    assert wordings.reworded("footsteps on stone", others, rng) != "walking on stone"
