"""Manifests of labelling: both kinds of lines, other prompts of a sound, captions by a tagger."""

import json
import pathlib
import re

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.label.label_inputs import LabelInput, read_inputs
from sam_audio_jax.label.label_settings import LabelSettings, possible_scores
from sam_audio_jax.label.prompt_kinds import KINDS, PromptKind
from sam_audio_jax.label.tagging import ClapTagger, read_vocabulary


def read(path, *lines):
    file = path / "manifest.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_inputs(file).inputs


def test_both_kinds_of_manifest_say_the_same(tmp_path):
    training = {"path": "a.wav", "caption": "Dog Barking.", "alt_captions": ["dog", "dog"]}
    training |= {"source_id": "x", "duration": 1.0, "category": "sfx", "spans": [[0.5, 1.0]]}
    separation = {"id": "a.wav", "audio": "a.wav", "text": "dog barking", "category": "sfx"}
    separation |= {"alt_captions": ["dog"], "spans": [["+", 0.5, 1.0]]}
    (one,), (other,) = (read(tmp_path, line) for line in (training, separation))
    assert one == other
    assert one.texts == ("dog barking", "dog")
    assert one.spans == (("+", 0.5, 1.0),)


def test_captions_that_are_sentences_become_phrases_on_request(tmp_path):
    line = {"path": "a.wav", "caption": "A dog is barking loudly.", "alt_captions": ["Dog barks"]}
    (written,) = read(tmp_path, line)
    assert written.texts == ("a dog is barking loudly", "dog barks")
    (phrases,) = read_inputs(tmp_path / "manifest.jsonl", phrases=True).inputs
    assert phrases.texts == ("dog barking",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"caption": "dog"}, "audio must be a string, not None"),
        ({"path": "a.wav", "audio": "b.wav"}, "has both audio and path: leave one"),
        ({"path": "a.wav", "caption": 3}, "text of manifest.jsonl line 2 must be a string"),
        ({"path": "a.wav", "mask": "m.npz"}, "has a mask but no video that it is of"),
        ({"path": "a.wav", "spans": [["?", 0, 1]]}, "span token '\\?'"),
        ({"id": "first", "path": "b.wav"}, "id 'first' is that of line 1"),
        ({"path": "a.wav", "channel": 0}, "channel must be a whole number from 1, not 0"),
        ({"path": ".", "record": 3}, "has a record, of shards, which are not labelled"),
        ([], "must be an object"),
    ],
)
def test_a_bad_line_is_an_input_with_a_reason(tmp_path, line, reason):
    first, second = read(tmp_path, {"id": "first", "path": "a.wav"}, line)
    assert first.reason == ""
    assert (second.id, second.number) == ("line 2", 2)
    assert re.search(reason, second.reason)


def test_a_manifest_without_any_good_line_is_an_error(tmp_path):
    with pytest.raises(UserError, match="line 1 must be an object"):
        read(tmp_path, [])


@pytest.mark.parametrize("name", KINDS)
def test_the_other_prompt_is_another_one_that_knows_the_same_sound(name):
    kind = PromptKind(name)
    other = kind.other()
    assert other != kind
    assert other.parts - {"text", "span"} == kind.parts - {"text", "span"}
    full = LabelInput(id="a", number=1, texts=("dog",), spans=(("+", 0.0, 1.0),))
    text, spans = other.prompt(full)
    assert bool(text) == ("text" in other.parts)
    assert bool(spans) == ("span" in other.parts)
    assert text or spans or "video" in other.parts


def test_an_input_lacks_what_its_prompt_or_a_score_needs():
    bare = LabelInput(id="a", number=1, texts=("dog",))
    assert LabelSettings().missing(bare) == ""
    assert LabelSettings(prompts="span").missing(bare) == "no spans in which it sounds"
    assert "which the score span_iou needs" in LabelSettings(scores=("span_iou",)).missing(bare)
    assert "which the score imagebind needs" in LabelSettings(scores=("imagebind",)).missing(bare)
    unnamed = LabelInput(id="b", number=2)
    assert LabelSettings().missing(unnamed) == "no caption"
    assert LabelSettings(vocabulary=("dog",)).missing(unnamed) == ""
    with pytest.raises(UserError, match="--filters absent tests texts"):
        LabelSettings(prompts="span", scores=("absent",))


@pytest.mark.parametrize(
    ("captions", "possible"),
    [
        (("dog barking", "rain"), True),
        (("dog barking",), False),
        (("dog barking", "dog howling"), False),
        ((), False),
    ],
)
def test_the_test_of_absent_sounds_needs_captions_that_differ(captions, possible):
    inputs = [LabelInput(id=one, number=n, texts=(one,)) for n, one in enumerate(captions, 1)]
    assert ("absent" in possible_scores(PromptKind("text"), (), inputs)) == possible


@pytest.mark.parametrize("files", [("a.wav",), ("a.wav", "a.wav"), ("a.wav", "b.wav")])
def test_a_remix_needs_two_recordings(files):
    inputs = [
        LabelInput(id=str(n), number=n, texts=("dog",), audio=pathlib.Path(file))
        for n, file in enumerate(files, 1)
    ]
    possible = possible_scores(PromptKind("text"), (), inputs)
    assert ("remix" in possible) == (len(set(files)) > 1)


class Axes:
    """CLAP with a direction for each phrase; a wave's mean is the number of its direction."""

    def embed_texts(self, texts):
        return np.eye(len(texts), dtype=np.float32)

    def embed_waves(self, waves, sample_rate):
        assert sample_rate == 8_000
        return np.eye(3, dtype=np.float32)[[round(float(wave.mean())) for wave in waves]]


def test_what_has_no_caption_gets_the_nearest_phrase(tmp_path):
    (tmp_path / "phrases.txt").write_text("Dog barking\n\nrain\nrain.\nviolin\n")
    phrases = read_vocabulary(tmp_path / "phrases.txt")
    assert phrases == ["dog barking", "rain", "violin"]
    tagger = object.__new__(ClapTagger)
    vars(tagger).update(scorer=Axes(), phrases=tuple(phrases), _vectors=Axes().embed_texts(phrases))
    assert tagger.caption(np.full(10, 2, np.float32), 8_000) == "violin"
    (tmp_path / "phrases.txt").write_text("\n .\n")
    with pytest.raises(UserError, match="has no phrase"):
        read_vocabulary(tmp_path / "phrases.txt")


def test_spellings_of_a_path_and_links_are_one_recording(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to("a.wav")
    names = ["a.wav", "sub/../a.wav", str(tmp_path / "a.wav"), "link.wav", "b.wav"]
    inputs = read(tmp_path, *({"path": name} for name in names))
    files = [one.recording for one in inputs]
    assert set(files[:4]) == {files[0]} != {files[4]}
