"""Pairs, absent prompts, near residuals, wordings, offsets and filters: each a share of its own."""

import dataclasses
import pickle

import numpy as np
import pytest

from sam_audio_jax.data import energy, likeness, pipeline, text
from sam_audio_jax.data.example_kinds import absent_rng, is_paired
from sam_audio_jax.data.recording_table import make_table
from sam_audio_jax.data.source import load_manifest
from sam_audio_jax.errors import UserError
from tests.data import toy
from tests.data.toy import HOP, RATE, assert_equal, config, replaced, separation, take

PAIRED = (("sfx", "sfx", 1.0), ("speech", "instrument", 1.0))  # both sounds have a name
ALL_ON = {
    "pair_share": 0.6,
    "absent_share": 0.3,
    "wording_share": 0.5,
    "near_share": 0.5,
    "caption_draws": 1.0,
    "caption_power": 0.5,
    "filter_share": 0.5,
    "offset_share": 0.5,
}


@pytest.fixture(scope="module")
def cache(world, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("cache") / "latents"
    toy.write_cache(folder, config(world, seconds=3.0, second_share=0.3), 24, teacher=toy.TEACHER)
    return str(folder)


def sources(world: str, cache: str, **fields) -> list:
    """Configs with waves and with latents."""
    return [config(world, **fields), config(world, cache=cache, **fields)]


def rows(batches: list[toy.Batch]) -> list[dict[str, np.ndarray]]:
    """The examples of batches, one after another."""
    return [{name: b[name][row] for name in b} for b in batches for row in range(len(b["valid"]))]


def phrase(example: dict[str, np.ndarray]) -> str:
    """The text of an example: ids are bytes, and three more."""
    ids = example["text_ids"][example["text_mask"]]
    return bytes(int(i) - 3 for i in ids if i > 2).decode()


def test_both_examples_of_a_pair_are_one_mixture_with_its_sounds_exchanged(world, cache):
    fields = {"pair_share": 0.8, "short_share": 0.5, "span_share": 0.0, "recipes": PAIRED}
    for cfg in sources(world, cache, **fields | {"second_share": 0.0}):
        examples = rows(take(separation(cfg, 6), 4))
        found = 0
        for number in range(0, len(examples), 2):
            one, other = examples[number : number + 2]
            same = np.array_equal(one["mixture"], other["mixture"])
            assert same <= is_paired(cfg, number)  # a record with one prompt has no second example
            assert is_paired(cfg, number) == is_paired(cfg, number + 1)
            if same:
                found += 1
                np.testing.assert_array_equal(one["target"], other["residual"])
                np.testing.assert_array_equal(one["residual"], other["target"])
                np.testing.assert_array_equal(one["valid"], other["valid"])
                assert phrase(one) != phrase(other)
        assert 2 < found < len(examples) // 2


def test_a_mixture_without_a_second_name_is_no_pair(world):
    for cfg in (config(world, pair_share=1.0, recipes=(("stem", "rest", 1.0),)),):
        examples = rows(take(separation(cfg, 6), 1))
        assert len({example["mixture"].tobytes() for example in examples}) == 6
        plain = rows(take(separation(replaced(cfg, pair_share=0.0), 6), 1))
        for one, other in zip(examples, plain, strict=True):
            np.testing.assert_array_equal(one["mixture"], other["mixture"])


def test_a_pair_needs_an_even_batch(world):
    with pytest.raises(UserError, match=r"batch=3 must be even, .*pair_share=0\.5"):
        separation(config(world, pair_share=0.5), 3)
    with pytest.raises(UserError, match="row_multiple=3 must be even"):
        config(world, pair_share=0.5, token_budget=450, buckets_s=(1.0,), row_multiple=3)


def test_an_absent_sound_has_a_silent_target_and_no_word_of_what_is_there(world, cache):
    mixer = pipeline.mixer(config(world), RATE, HOP)
    for cfg in sources(world, cache, absent_share=0.4):
        plain = rows(take(separation(replaced(cfg, absent_share=0.0), 6), 4))
        found = 0
        for number, example in enumerate(rows(take(separation(cfg, 6), 4))):
            if absent_rng(cfg, number) is None:
                assert_equal([example], [plain[number]])
                continue
            found += 1
            np.testing.assert_array_equal(example["residual"], plain[number]["mixture"])
            np.testing.assert_array_equal(example["mixture"], plain[number]["mixture"])
            assert not example["target"].any()  # the toy codec's silence is zero, too
            assert (example["anchors"][example["valid"]] == 0).all()
            if not cfg.cache:
                mixture = mixer.draw(np.random.default_rng((0, number)))
                present = likeness.Present(mixture.target_claims, mixture.residual_claims)
                assert not present.may_include(phrase(example))
            else:
                assert example["teacher_features"][:, 1].max() == 0  # of silence, not the target
        assert 3 < found < 18


def test_what_is_present_is_known_of_every_mixture(world, cache):
    mixer = pipeline.mixer(config(world, second_share=0.5), RATE, HOP)
    for number in range(20):
        mixture = mixer.draw(np.random.default_rng(number))
        assert set(mixture.target_texts) <= mixture.target_claims
        assert set(mixture.residual_texts) <= mixture.residual_claims
        assert mixture.residual_claims  # also of two sounds without a name
        if "stem" in mixture.category or "song" in mixture.category:
            assert "music" in mixture.target_claims | mixture.residual_claims


def test_a_cache_of_an_earlier_version_is_refused_for_absent_prompts(world, cache, tmp_path):
    old = tmp_path / "old"
    toy.write_cache(old, config(world, seconds=3.0), 8)
    (old / "silence.msgpack").unlink()
    cfg = config(world, cache=str(old))
    take(separation(cfg, 4), 1)
    with pytest.raises(UserError, match="has no silence, the target of absent prompts"):
        separation(replaced(cfg, absent_share=0.1), 4)


def test_a_near_residual_shares_words_and_never_the_caption(world):
    near = config(world, near_share=1.0, recipes=PAIRED[:1], second_share=0.0)
    mixer = pipeline.mixer(near, RATE, HOP)
    for number in range(20):
        mixture = mixer.draw(np.random.default_rng(number))
        one, other = mixture.target_texts[0], mixture.residual_texts[0]
        assert one != other
        assert likeness.words(one) & likeness.words(other)


def test_captions_are_drawn_by_the_power_of_their_number(world):
    drawn = {}
    for power in (0.0, 1.0):
        cfg = config(world, caption_draws=1.0, caption_power=power)
        catalogue = pipeline.mixer(cfg, RATE, HOP).catalogue
        catalogue.captions["sfx"] = [np.array([0]), np.arange(1, 10)]  # one and nine recordings
        catalogue._bounds["sfx"] = np.array([1.0, 1.0 + 9.0**power]) / (1.0 + 9.0**power)
        rng = np.random.default_rng(0)
        drawn[power] = np.mean([catalogue.recording("sfx", rng) == 0 for _ in range(400)])
    assert drawn[0.0] == pytest.approx(0.5, abs=0.1)
    assert drawn[1.0] == pytest.approx(0.1, abs=0.05)


def test_recordings_of_several_events_are_left_out_where_the_recipe_says_so(world):
    recordings = load_manifest(world)
    scene = dataclasses.replace(recordings[0], caption="people chattering in a market")
    assert not text.is_single(scene)
    assert text.is_single(dataclasses.replace(scene, single=True))
    assert text.is_single(recordings[0])
    cfg = config(world, single_kinds=("sfx",))
    plain = pipeline.mixer(cfg, RATE, HOP)
    number = plain.catalogue.groups["sfx"][0]
    changed = list(plain.recordings)
    changed[number] = dataclasses.replace(changed[number], single=False)
    waves = plain.arranger.waves
    mixer = type(plain)(cfg.mix, make_table(changed, ()), waves, RATE, plain.samples)
    assert number not in mixer.catalogue.groups["sfx"]
    assert number in mixer.catalogue.groups["any"]
    with pytest.raises(UserError, match="single_kinds has 'song'"):
        config(world, single_kinds=("song",))


def test_the_speed_of_one_category_is_its_own(world):
    recipe = (("sfx", "speech", 1.0),)
    fields = {"speed_of": (("sfx", 0.3),), "speed": 0.0, "speed_share": 1.0, "recipes": recipe}
    mixer = pipeline.mixer(config(world, **fields), RATE, HOP)
    mixtures = [mixer.draw(np.random.default_rng(number)) for number in range(25)]
    speeds = [place.speed for mixture in mixtures for place in mixture.target_places]
    assert 0.7 <= min(speeds) < 0.9 < 1.1 < max(speeds) <= 1.3
    assert {place.speed for mixture in mixtures for place in mixture.residual_places} == {1.0}
    with pytest.raises(UserError, match="speed_of has 'dogs'; categories are speech"):
        config(world, speed_of=(("dogs", 0.1),))


def test_offsets_and_filters_keep_the_sum_and_the_spans(world):
    fields = {"filter_share": 1.0, "offset_share": 1.0, "offset": 0.05}
    mixer = pipeline.mixer(config(world, **fields), RATE, HOP)
    for number in range(20):
        mixture = mixer.draw(np.random.default_rng(number))
        np.testing.assert_array_equal(mixture.mixture, mixture.target + mixture.residual)
        assert np.abs(mixture.mixture).max() <= 0.951
        assert mixture.residual_offset != 0
        clean = mixture.residual - np.float32(mixture.residual_offset)
        active = mixture.activities(RATE, HOP)
        np.testing.assert_array_equal(active[1], energy.activity(clean, RATE, HOP))
        np.testing.assert_array_equal(mixture.exchanged().activities(RATE, HOP), active[::-1])


def test_everything_at_once_adds_up_and_depends_on_seed_and_step_alone(world, cache):
    for cfg in sources(world, cache, **ALL_ON):
        whole = take(separation(cfg, 4), 3)
        for batch in whole if not cfg.cache else ():
            total = batch["target"] + batch["residual"]
            np.testing.assert_array_equal(total, batch["mixture"])
        halves = [take(separation(cfg, 4, process_index=p, process_count=2), 3) for p in (0, 1)]
        joined = [
            {name: np.concatenate([a[name], b[name]]) for name in a}
            for a, b in zip(*halves, strict=True)
        ]
        assert_equal(joined, whole)
        resumed = separation(cfg, 4)
        resumed.set_state({"batches": 1})
        assert_equal(take(resumed, 2), whole[1:])


def test_an_example_is_the_same_in_another_process(world, cache):
    for cfg in sources(world, cache, **ALL_ON):
        items = separation(cfg, 4).items
        copied = pickle.loads(pickle.dumps(items))
        assert_equal([copied[number] for number in (7, 3)], [items[number] for number in (7, 3)])


@pytest.mark.long
@pytest.mark.processes
def test_workers_change_nothing_of_it(world):
    cfg = config(world, **ALL_ON)
    assert_equal(take(separation(replaced(cfg, workers=2), 4), 3), take(separation(cfg, 4), 3))


def test_a_share_of_nothing_is_the_stream_without_it(world, cache):
    """A bound beside a share of zero, and the new draws of others, move no bit."""
    unused = {"filter_db": 1.0, "offset": 0.01, "caption_power": 0.0, "caption_draws": 0.5}
    zeros = dict.fromkeys(ALL_ON, 0.0) | unused
    for plain, zero in zip(sources(world, cache), sources(world, cache, **zeros), strict=True):
        assert_equal(take(separation(plain, 4), 2), take(separation(zero, 4), 2))


def test_examples_in_buckets_are_pairs_and_absent_likewise(world):
    fields = {"token_budget": 450, "buckets_s": (1.0, 2.0), "row_multiple": 4, "recipes": PAIRED}
    cfg = config(world, pair_share=1.0, absent_share=0.2, second_share=0.0, **fields)
    examples = rows(take(separation(cfg), 3))
    for number in range(0, len(examples), 2):
        one, other = examples[number : number + 2]
        np.testing.assert_array_equal(one["mixture"], other["mixture"])
        if absent_rng(cfg, number) is None and absent_rng(cfg, number + 1) is None:
            np.testing.assert_array_equal(one["target"], other["residual"])
