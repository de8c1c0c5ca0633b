"""The prompts that each mixture gets, and the batches of what is separated."""

import dataclasses

import pytest

from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.mixtures import load_bench, render
from sam_audio_jax.eval.prompting import ABSENT, EXAMPLES, KINDS, PROMPTS, prompted_mixtures
from sam_audio_jax.eval.suite import batches, fixed_suite
from tests.eval.listing import write_lines


@pytest.fixture
def mixtures(bench_folder):
    bench = load_bench(bench_folder)
    return [render(bench, item) for item in bench.mixtures]


def test_wrong_prompts_exist_only_where_they_name_the_other_source(mixtures):
    prompted, alike = prompted_mixtures(mixtures, PROMPTS)
    assert alike == ["b"]  # both sound all the time
    wrong = {(one.recorded.item.id, one.kind) for one in prompted if not one.right}
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


def test_batches_have_one_length_and_every_mixture_once(bench_folder):
    separations = fixed_suite(bench_folder, 8_000).separations
    groups = batches(separations, 4)
    assert [len(group) for group in groups] == [4, 4, 4, 2]
    assert [one for group in groups for one in group] == list(separations)
    groups = batches(separations, 4, by_kind=True)
    assert all(len({one.kind for one in group}) == 1 for group in groups)
    assert sum(map(len, groups)) == len(separations)


def test_unknown_prompt_is_refused(mixtures):
    with pytest.raises(UserError, match="prompt 'image' must be one of text, span"):
        prompted_mixtures(mixtures, ["image"])
    with pytest.raises(UserError, match="prompt 'capitals' is compared with 'text'"):
        prompted_mixtures(mixtures, ["capitals"])
    with pytest.raises(UserError, match="no mixture has a prompt 'absent'"):
        prompted_mixtures(mixtures, [ABSENT])


def test_other_wordings_and_absent_sounds_are_prompts_of_mixtures_that_list_them(mixtures):
    listed = {"alt_caption": "noise of air", "absent": "piano", "seen": True}
    item = dataclasses.replace(mixtures[0].item, **listed)
    mixtures[0] = dataclasses.replace(mixtures[0], item=item)
    kinds = [kind for kind in KINDS if kind not in EXAMPLES]
    prompted, _ = prompted_mixtures(mixtures, kinds)
    own = {p.kind: p.text for p in prompted if p.right and p.recorded is mixtures[0]}
    assert own["capitals"] == "HISS"
    assert own["full-stop"] == "Hiss."
    assert own["sound-of"] == "the sound of a hiss"
    assert own["alt-caption"] == "noise of air"
    assert own[ABSENT] == "piano"
    others = {p.kind for p in prompted if p.recorded is mixtures[1]}
    assert others == {"text", "text+span", "span", "capitals", "full-stop", "sound-of"}
    assert all(p.right for p in prompted if p.kind not in PROMPTS)


def test_examples_are_prompts_of_mixtures_that_list_them(bench_folder, lines):
    lines[0] |= {"example": "beep", "other_example": "hiss"}
    lines[1] |= {"example": "beep"}  # of its residual there is none, so that no prompt is wrong
    write_lines(bench_folder / "mixtures.jsonl", lines)
    bench = load_bench(bench_folder)
    mixtures = [render(bench, item) for item in bench.mixtures]
    prompted, _ = prompted_mixtures(mixtures, EXAMPLES)
    beep, hiss = (str(bench_folder / f"{name}.wav") for name in ("beep", "hiss"))
    assert [(p.recorded.item.id, p.kind, p.right, p.text, p.like) for p in prompted] == [
        ("a", "like", True, None, beep),
        ("a", "like", False, None, hiss),
        ("a", "text+like", True, "hiss", beep),
        ("a", "text+like", False, "hum", hiss),
        ("b", "like", True, None, beep),
        ("b", "text+like", True, "hum", beep),
    ]
    with pytest.raises(UserError, match="no mixture has a prompt 'like'"):
        prompted_mixtures(mixtures[2:], ["like"])
    write_lines(bench_folder / "mixtures.jsonl", [lines[0] | {"example": "x"}])
    with pytest.raises(UserError, match=r"mixture a: example 'x' is not in manifest\.jsonl"):
        load_bench(bench_folder)
