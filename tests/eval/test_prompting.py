"""The prompts that each mixture gets, and the batches of what is separated."""

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.eval.prompting import PROMPTS, batches, prompted_mixtures


@pytest.fixture
def mixtures(bench_folder):
    bench = load_bench(bench_folder)
    return [render(bench, item) for item in bench.mixtures]


def test_wrong_prompts_exist_only_where_they_name_the_other_source(mixtures):
    prompted, alike = prompted_mixtures(mixtures, PROMPTS)
    assert alike == ["b"]  # both sound all the time
    wrong = {(one.rendered.item.id, one.kind) for one in prompted if not one.right}
    assert wrong == {("a", kind) for kind in PROMPTS} | {("b", "text"), ("b", "text+span")}
    assert sum(one.right for one in prompted) == 3 * len(mixtures)


def test_each_kind_of_prompt_has_its_text_and_spans(mixtures):
    prompted, _ = prompted_mixtures(mixtures[:1], PROMPTS)
    text, spans = {}, {}
    for one in prompted:
        text[one.kind, one.right] = one.text
        spans[one.kind, one.right] = one.positive_spans()
    assert text["text", True] == text["text+span", True] == "hiss"
    assert text["text", False] == "hum"
    assert text["span", True] is None
    assert spans["text", True] is None
    assert spans["span", True] == [("+", 0.0, 1.0)]
    ((_, start, end),) = spans["span", False]
    assert start == 0
    assert end == pytest.approx(2.0, abs=0.02)
    assert end <= 2.0


def test_batches_have_one_length_and_every_mixture_once(mixtures):
    prompted, _ = prompted_mixtures(mixtures, PROMPTS)
    groups = batches(prompted, 4)
    assert [len(group) for group in groups] == [4, 4, 4, 2]
    assert [one for group in groups for one in group] == prompted


def test_unknown_prompt_is_refused(mixtures):
    with pytest.raises(UserError, match="prompt 'image' must be one of text, span"):
        prompted_mixtures(mixtures, ["image"])
