"""Labels as training data: a share of the examples, chosen by thresholds, as they were made."""

import dataclasses
import pathlib

import numpy as np
import pytest

from sam_audio_jax.data import pipeline
from sam_audio_jax.data.config import DataConfig, LabelConfig, MixConfig, PromptConfig, RecipeConfig
from sam_audio_jax.data.labels import (
    INDEX,
    LabelCache,
    LabelledRecord,
    pack_label,
    shard_path,
    unpack_label,
    write_scores,
    write_shard,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_json
from tests.data import toy

RATE, HOP, FRAMES, CHANNELS = toy.RATE, toy.HOP, 24, 4


def make_label(number: int) -> LabelledRecord:
    """Latents of which each has a value of its own, so that no two stems are confused."""
    ones = np.ones((FRAMES, CHANNELS), np.float16)
    return LabelledRecord(
        ones * (100 + number),
        ones * (200 + number),
        ones * (300 + number),
        target_texts=(f"tone {number}",),
        residual_texts=(),
        target_active=np.arange(FRAMES) < 12,
        residual_active=np.ones(FRAMES, bool),
        category="sfx/rest",
        id=f"item{number}",
        prompt={"kind": "text", "text": f"tone {number}", "spans": [], "video": False},
        scores={"remix": float(number), "judge": None},
        checkpoint="tiny",
    )


@pytest.fixture
def labels(tmp_path):
    """Six labels in two shards, one of which also has an input without a label."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for shard in range(2):
        some = [make_label(number) for number in range(3 * shard, 3 * shard + 3)]
        entries = [{"id": one.id, "line": 1, "scores": dict(one.scores)} for one in some]
        entries.insert(1, {"id": f"bad{shard}", "line": 2, "reason": "x", "detail": "y"})
        write_shard(shard_path(folder, shard), [pack_label(one) for one in some], entries)
    write_scores(folder, 2)
    index = {"format": 1, "shards": 2, "sample_rate": RATE, "hop": HOP, "video_width": 0}
    write_json(folder / INDEX, index | {"samples": FRAMES * HOP, "channels": CHANNELS})
    return str(folder)


def config(folder: str, **fields) -> DataConfig:
    return DataConfig(
        mix=MixConfig(seconds=FRAMES * HOP / RATE),
        prompts=PromptConfig(text_tokens=8, span_share=0.0),
        labels=LabelConfig(folder=folder, **fields),
    )


def test_a_label_survives_its_bytes():
    before = make_label(1)
    after = unpack_label(pack_label(before))
    for field in dataclasses.fields(LabelledRecord):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"remix": 3.0}, [4, 5]),
        ({"remix": 1.5, "most": 4}, [2, 3, 4, 5]),
    ],
)
def test_thresholds_choose_when_labels_are_read(labels, fields, wanted):
    cache = LabelCache(LabelConfig(folder=labels, **fields), seed=0)
    assert [cache[number].id for number in range(len(cache))] == [f"item{n}" for n in wanted]


def test_shards_that_are_not_those_of_the_scores_are_refused(labels):
    first, second = (shard_path(pathlib.Path(labels), number) for number in range(2))
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    with pytest.raises(UserError, match="has the label 'item3' where by scores"):
        LabelCache(LabelConfig(folder=labels), 0)[0]
    write_shard(first, [], [])
    with pytest.raises(UserError, match=r"have 5 records, and by scores\.jsonl they have 8"):
        LabelCache(LabelConfig(folder=labels), 0)


def test_random_labels_are_as_many_as_the_config_says(labels):
    chosen = [LabelCache(LabelConfig(folder=labels, most=2), seed=seed) for seed in range(9)]
    ids = [tuple(one[number].id for number in range(len(one))) for one in chosen]
    assert {len(set(some)) for some in ids} == {2}
    assert len(set(ids)) > 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"remix": 9.0}, "none of the 6 labels .* passes the thresholds remix 9"),
        ({"judge": 3.0}, "label item0 of .* has no score judge"),
        ({"silence": 0.9}, "has no score silence"),
        ({"remix": 3.0, "most": 3}, "data.labels.most=3, but 2 labels of"),
    ],
)
def test_what_cannot_be_chosen_is_an_error(labels, fields, reason):
    with pytest.raises(UserError, match=reason):
        LabelCache(LabelConfig(folder=labels, **fields), seed=0)


def test_a_share_needs_a_cache_for_the_others(labels):
    with pytest.raises(UserError, match=r"data.labels.share=0.5 leaves the other examples"):
        config(labels)


def test_examples_have_the_stems_as_they_were_made(labels):
    examples = pipeline.cached_examples(config(labels, share=1.0), RATE, HOP, FRAMES)
    seen = [examples[number] for number in range(6)]
    numbers = [round(float(one["mixture"].max())) - 100 for one in seen]
    assert sorted(numbers) == list(range(6))  # each once in a round
    for number, one in zip(numbers, seen, strict=True):
        valid = one["valid"]
        assert (one["target"][valid] == 200 + number).all()
        assert (one["residual"][valid] == 300 + number).all()


@pytest.fixture
def cached(labels, world, tmp_path):
    """The config of the labels beside a latent cache of the toy mixtures."""
    mixed = toy.config(world)
    toy.write_cache(tmp_path / "cache", mixed, 16)
    mix = dataclasses.replace(mixed.mix, seconds=FRAMES * HOP / RATE)

    def make(share: float) -> DataConfig:
        own = LabelConfig(folder=labels, share=share)
        return dataclasses.replace(mixed, mix=mix, cache=str(tmp_path / "cache"), labels=own)

    return make


def test_labels_are_a_share_and_leave_the_other_examples_alone(cached):
    plain = pipeline.cached_examples(
        dataclasses.replace(cached(0.0), labels=LabelConfig()), RATE, HOP, FRAMES
    )
    for share, period in ((0.0, None), (0.25, 4)):
        examples = pipeline.cached_examples(cached(share), RATE, HOP, FRAMES)
        others = 0
        for number in range(12):
            example = examples[number]
            assert set(example) == set(plain[0])
            if period and number % period == period - 1:
                assert example["mixture"].max() >= 100
                continue
            for name, value in plain[others].items():
                np.testing.assert_array_equal(example[name], value)
            others += 1


def test_batches_of_several_lengths_have_labels_among_them(cached):
    cfg = toy.replaced(cached(0.5), token_budget=48, buckets_s=(0.4, 0.8), row_multiple=2)
    for batch in toy.take(toy.separation(cfg), 6):
        rows, frames = batch["valid"].shape
        assert rows * frames <= 48
        are_labels = batch["mixture"].max(axis=(1, 2)) >= 100
        assert are_labels.sum() == rows // 2


def test_a_cache_with_a_teacher_is_refused_beside_labels(cached, world, tmp_path):
    longer = toy.config(world, seconds=3.0)
    toy.write_cache(tmp_path / "taught", longer, 8, teacher=toy.TEACHER)
    cfg = dataclasses.replace(cached(0.5), cache=str(tmp_path / "taught"))
    with pytest.raises(UserError, match="has the features of a teacher, and labels have none"):
        pipeline.cached_examples(cfg, RATE, HOP, FRAMES)


@pytest.mark.parametrize("share", ["absent_share", "pair_share"])
def test_what_has_no_effect_on_labels_alone_is_refused(labels, share):
    alone = toy.replaced(config(labels, share=1.0), **{share: 0.5})
    beside = dataclasses.replace(alone, cache="/never read")
    blend = RecipeConfig(name="labels", mix=alone.mix, labels=LabelConfig(folder=labels))
    unused = RecipeConfig(name="unused", mix=alone.mix, cache="/never read", weight=0.0)
    blended = dataclasses.replace(alone, labels=LabelConfig(), blend=(blend, unused))
    for cfg in (alone, beside, blended):
        with pytest.raises(UserError, match=f"{share}=0.5 has no effect, since all examples are"):
            pipeline.separation_batches(cfg, RATE, HOP, 4)


def test_in_a_blend_the_parts_without_labels_have_absent_prompts_and_pairs(cached):
    """`prompts` is that of all recipes, and labels are of none of these kinds."""
    both = cached(0.5)
    parts = (
        RecipeConfig(name="labels", mix=both.mix, labels=both.labels),
        RecipeConfig(name="mixed", mix=both.mix, cache=both.cache),
    )
    blended = dataclasses.replace(both, cache="", labels=LabelConfig(), blend=parts)
    cfg = toy.replaced(blended, absent_share=0.5, pair_share=1.0)
    batches = toy.take(toy.separation(cfg, 4), 6)
    mixtures = np.concatenate([batch["mixture"] for batch in batches])
    targets = np.concatenate([batch["target"] for batch in batches])
    are_labels = mixtures.max(axis=(1, 2)) >= 100
    assert 0 < are_labels.sum() < len(mixtures)
    is_silent = np.abs(targets).max(axis=(1, 2)) < 1e-3
    assert is_silent[~are_labels].any()
    assert not is_silent[are_labels].any()
