"""A prompt, or a part of one, that has no effect is named."""

import numpy as np
import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.prompt_notes import faint_notes, prediction_notes, span_notes
from tests import tiny

RATE = 8_000  # with frames of 40 ms


@pytest.mark.parametrize(
    ("spans", "ignored", "notes"),
    [
        ([("+", 0.1, 0.5), ("-", 0.6, 0.7)], (), []),
        ([("+", 0.101, 0.105)], (), ["span + 0.101-0.105 s has no effect: no frame of 40 ms"]),
        ([("+", 0.99, 1.0)], (), ["begins in it"]),
        ([("+", 0.2, 0.3), ("-", 0.1, 0.5)], (), ["span + 0.2-0.3 s has no effect: later spans"]),
        ([("+", 0.1, 0.5), ("-", 0.2, 0.3)], (), []),
        ([("+", 0.1, 0.5), ("-", 0.6, 0.7)], ("-",), ["span - 0.6-0.7 s has no effect: the model"]),
    ],
)
def test_spans_without_effect(spans, ignored, notes):
    found = list(span_notes(spans, 25, tiny.CODEC.sample_rate, tiny.CODEC.hop, ignored))
    assert len(found) == len(notes)
    for note, part in zip(found, notes, strict=True):
        assert part in note


def test_predictions_without_effect():
    span = ("+", 0.1, 0.5)
    assert not list(prediction_notes([], [span], "dog"))
    (own,) = prediction_notes([span], [span], "dog")
    (silent,) = prediction_notes([], [], "")
    (nothing,) = prediction_notes([], [], "dog")
    assert "none are predicted" in own
    assert "without a text" in silent
    assert "no spans were found" in nothing


def test_targets_in_which_hardly_anything_is(noise_of):
    mixture = noise_of(600.5)
    short = np.zeros_like(mixture)
    short[-RATE // 4 :] = mixture[-RATE // 4 :]  # a quarter of a second, at the end of ten minutes
    level = 10 ** (-16 / 20)
    (note,) = faint_notes(level * mixture, mixture, RATE, "dog")
    assert "hardly anything of 'dog' was found" in note
    assert "at least 16 dB below" in note
    assert note.endswith("; if the sound is there, mark it with a span")
    (note,) = faint_notes(level * mixture, mixture, RATE, "dog", marked=True)
    assert note.endswith("in every second")
    assert not list(faint_notes(level * mixture, mixture, RATE, ""))  # nothing was named
    assert not list(faint_notes(level * mixture + short, mixture, RATE, "dog"))
    assert not list(faint_notes(10 ** (-14 / 20) * mixture, mixture, RATE, "dog"))
    assert list(faint_notes(np.zeros_like(mixture), mixture, RATE, "dog"))
    assert not list(faint_notes(np.zeros_like(mixture), np.zeros_like(mixture), RATE, "dog"))
    # Where the recording is all but silent its noise is not compared.
    quiet = np.concatenate([1e-3 * mixture[: 5 * RATE], mixture])
    leak = np.concatenate([1e-3 * mixture[: 5 * RATE], level * mixture])
    assert list(faint_notes(leak, quiet, RATE, "dog"))


def test_notes_reach_a_caller(model, noise_of):
    with pytest.warns(UserWarning, match="audio: its text has no words"):
        model.separate(noise_of(1.01), " ?", [("+", 0.2, 0.6)], sample_rate=RATE)
    (note,) = model.item(noise_of(1.01), "dog " * 200, sample_rate=RATE).recording.notes
    assert note.startswith("audio: its text has 800 tokens, of which the first 511 are read, to ")
    item = model.item(noise_of(1.01), "dog", [("+", 0.2, 0.6)], sample_rate=RATE)
    assert not item.recording.notes


@pytest.mark.parametrize("text", [None, "", "  ", "?!"])
def test_nothing_is_asked_for(text, model, noise_of):
    with pytest.raises(UserError, match="nothing says what to separate from audio"):
        model.separate(noise_of(1.01), text, sample_rate=RATE)
    with pytest.raises(UserError, match="nothing says what to separate from item 1"):
        model.separate([noise_of(1.01)] * 2, ["dog", text], sample_rate=RATE)


def test_texts_that_are_no_text(model, noise_of):
    with pytest.raises(UserError, match="half of a character"):
        model.separate(noise_of(1.01), "dog \ud83d", sample_rate=RATE)
