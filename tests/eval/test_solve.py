"""Which questions are asked, and in what batches."""

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.bench import at_rate
from sam_audio_jax.eval.mixtures import load_bench
from sam_audio_jax.eval.solve import PROMPTS, batches, questions
from tests.eval.listing import RATE


@pytest.fixture
def sounds(bench_folder):
    bench = load_bench(bench_folder)
    return [at_rate(bench, item, RATE) for item in bench.mixtures]


def test_wrong_prompts_only_where_they_can_tell(sounds):
    asked, alike = questions(sounds, PROMPTS, RATE)
    assert alike == ["b"]  # both sound all the time
    wrong = {(q.sound.item.id, q.prompt) for q in asked if not q.right}
    assert wrong == {("a", p) for p in PROMPTS} | {("b", "text"), ("b", "text+span")}
    assert sum(q.right for q in asked) == 3 * len(sounds)


def test_a_question_carries_what_its_kind_of_prompt_has(sounds):
    asked, _ = questions(sounds[:1], PROMPTS, RATE)
    text, spans = {}, {}
    for question in asked:
        text[question.prompt, question.right] = question.text
        spans[question.prompt, question.right] = question.marks()
    assert text["text", True] == text["text+span", True] == "hiss"
    assert text["text", False] == "hum"
    assert text["span", True] is None
    assert spans["text", True] is None
    assert spans["span", True] == [("+", 0.0, 1.0)]
    ((_, start, end),) = spans["span", False]
    assert start == 0
    assert end == pytest.approx(2.0, abs=0.02)
    assert end <= 2.0


def test_batches_hold_one_length_and_every_question_once(sounds):
    asked, _ = questions(sounds, PROMPTS, RATE)
    made = batches(asked, 4)
    assert [len(group) for group in made] == [4, 4, 4, 2]
    assert [q for group in made for q in group] == asked


def test_unknown_prompt_is_refused(sounds):
    with pytest.raises(UserError, match="prompt 'image' must be one of text, span"):
        questions(sounds, ["image"], RATE)
