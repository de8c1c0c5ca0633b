"""Several recipes in one stream: weights, their curriculum, and rules of their own."""

import dataclasses

import numpy as np
import pytest
import soundfile

from sam_audio_jax import config as configs
from sam_audio_jax.data import energy, pipeline
from sam_audio_jax.data.blended_examples import config_of, named_recipe
from sam_audio_jax.data.config import (
    DataConfig,
    LabelConfig,
    MixConfig,
    RecipeConfig,
    SourceConfig,
)
from sam_audio_jax.data.interleave import BLOCK, Interleave, block_counts
from sam_audio_jax.data.lossy import coded
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_jsonl
from sam_audio_jax.train.config import TrainConfig
from tests.data import toy

RATE, HOP = toy.RATE, toy.HOP


def recipe(world: str, name: str, kinds: tuple[str, str], **fields) -> RecipeConfig:
    mix = MixConfig(seconds=2.0, recipes=((*kinds, 1.0),))
    mix = dataclasses.replace(mix, **fields.pop("mix", {}))
    return RecipeConfig(name=name, source=SourceConfig(manifests=(world,)), mix=mix, **fields)


def of(*recipes: RecipeConfig, **fields) -> DataConfig:
    return DataConfig(mix=MixConfig(seconds=2.0), blend=recipes, **fields)


def mixtures(world: str, count: int = 12, **fields):
    mixer = pipeline.mixer(toy.config(world, **fields), RATE, HOP)
    return [mixer.draw(np.random.default_rng(number)) for number in range(count)]


def test_each_list_has_its_share_in_its_own_order_and_without_weight_changes_nothing():
    weights = [(0, (3.0, 1.0, 0.0)), (2_500, (1.0, 0.0, 1.0)), (2_700, (0.0, 1.0, 0.0))]
    order = Interleave(weights, seed=4)
    places = [order(index) for index in range(5_000)]
    for which in range(3):
        numbers = [number for one, number in places if one == which]
        assert numbers == list(range(len(numbers)))
    counts = np.bincount([one for one, _ in places[:BLOCK]], minlength=3)
    assert counts.tolist() == [750, 250, 0]
    assert {one for one, _ in places[2_500:2_700]} == {0, 2}
    assert {one for one, _ in places[2_700:]} == {1}
    without = Interleave([(0, (3.0, 1.0)), (2_500, (1.0, 0.0))], seed=4)
    assert [without(index) for index in range(2_500)] == places[:2_500]
    assert block_counts([1e-6, 1.0, 0.0]) == (1, 999, 0)
    with pytest.raises(UserError, match="one must be above 0"):
        block_counts([0.0])


def test_an_example_is_that_of_its_recipe_alone_and_a_weight_of_zero_is_not_opened(world):
    one = recipe(world, "effects", ("sfx", "sfx"), weight=2.0)
    two = recipe(world, "voices", ("speech", "instrument"), curriculum=((3, 0.0),))
    nothing = recipe("/gone/manifest.jsonl", "nothing", ("sfx", "sfx"), weight=0.0)
    batches = toy.take(toy.separation(of(one, two), 4), 4)
    toy.assert_equal(toy.take(toy.separation(of(one, two, nothing), 4), 4), batches)
    alone = [toy.take(toy.separation(config_of(of(one, two), part), 1), 16) for part in (one, two)]
    order, counts = Interleave([(0, (2.0, 1.0)), (12, (2.0, 0.0))], 0), [0, 0]
    for index in range(16):
        which, number = order(index)
        counts[which] += 1
        for name, rows in batches[index // 4].items():
            np.testing.assert_array_equal(rows[index % 4], alone[which][number][name][0])
    assert min(counts) > 1
    resumed = toy.separation(of(one, two), 4)
    resumed.set_state({"batches": 2})
    toy.assert_equal(toy.take(resumed, 2), batches[2:])
    hosts = [
        toy.take(toy.separation(of(one, two), 4, process_index=i, process_count=2), 4)
        for i in range(2)
    ]
    for whole, *parts in zip(batches, *hosts, strict=True):
        for name, rows in whole.items():
            np.testing.assert_array_equal(rows, np.concatenate([part[name] for part in parts]))


def test_folders_of_a_recipe_without_weight_are_none_of_the_data(world):
    """So that neither a check nor a note reads them, which need not exist."""
    used = recipe(world, "effects", ("sfx", "sfx"), cache="here", curriculum=((3, 0.0),))
    labels = LabelConfig(folder="gone")
    for one in ({"cache": "gone"}, {"labels": labels}, {"cache": "gone", "labels": labels}):
        config = of(used, recipe(world, "nothing", ("sfx", "sfx"), weight=0.0, **one))
        assert (config.caches, config.label_folders) == (("here",), ())
    later = recipe(
        world, "later", ("sfx", "sfx"), weight=0.0, curriculum=((3, 1.0),), cache="there"
    )
    assert of(used, later).caches == ("here", "there")
    waves = of(
        recipe(world, "effects", ("sfx", "sfx")), dataclasses.replace(used, name="b", weight=0.0)
    )
    assert not waves.encoded


@pytest.mark.long
def test_workers_do_not_change_the_stream_of_recipes_and_streamed_sources(world):
    one, two = (recipe(world, name, ("sfx", "speech")) for name in ("one", "two"))
    streamed = dataclasses.replace(two.source, streamed=True)
    both = of(one, dataclasses.replace(two, source=streamed))
    stream = toy.take(toy.separation(both, 4), 4)
    for workers in (1, 4):
        again = toy.separation(toy.replaced(both, workers=workers), 4)
        toy.assert_equal(toy.take(again, 4), stream)


def test_recipes_with_caches_are_read_by_their_weights(world, tmp_path):
    parts = []
    for name, kinds in (("effects", ("sfx", "sfx")), ("voices", ("speech", "instrument"))):
        named = {"second_share": 0.0}  # so that every residual has a name, and a prompt
        part = recipe(world, name, kinds, cache=str(tmp_path / name), mix=named)
        toy.write_cache(part.cache, named_recipe(of(part), name), 8, name=name)
        parts.append(part)
    pair = {"pair_share": 1.0, "absent_share": 0.1}
    cfg = toy.replaced(of(*parts), **pair)
    batches = toy.take(toy.separation(cfg, 4), 3)
    gone = recipe(world, "gone", ("sfx", "sfx"), cache="/gone", weight=0.0)
    again = toy.replaced(of(*parts, gone), **pair)
    toy.assert_equal(toy.take(toy.separation(again, 4), 3), batches)
    for batch in batches:  # of a pair, each the residual of the other, unless it is absent
        for row in (0, 2):
            np.testing.assert_array_equal(batch["mixture"][row], batch["mixture"][row + 1])
    mixed = of(parts[0], dataclasses.replace(parts[1], cache=""))
    with pytest.raises(UserError, match="some have a cache and others none"):
        toy.separation(mixed, 4)


def test_recipes_that_contradict_each_other_are_refused(world):
    one = recipe(world, "effects", ("sfx", "sfx"))
    with pytest.raises(UserError, match="must have different names"):
        of(one, one)
    with pytest.raises(UserError, match=r"effects mixes 3 s, and data\.mix\.seconds=2"):
        of(recipe(world, "effects", ("sfx", "sfx"), mix={"seconds": 3.0}))
    with pytest.raises(UserError, match="have no weight at any step"):
        toy.separation(of(dataclasses.replace(one, weight=0.0)), 4)
    with pytest.raises(UserError, match="curriculum of effects must rise"):
        dataclasses.replace(one, curriculum=((3, 1.0), (2, 0.0)))
    with pytest.raises(UserError, match=r"no recipe 'x' in data\.blend; there are: effects"):
        named_recipe(of(one), "x")


def test_the_published_recipe_is_a_config_whose_fields_are_flags():
    flags = ["--data.blend.0.weight", "2.5", "--data.blend.1.mix.snr-db", "-5", "5"]
    cfg = configs.from_cli(["published@labels", *flags], TrainConfig)
    assert cfg.data.blend[0].weight == 2.5
    assert cfg.data.blend[1].mix.snr_db == (-5.0, 5.0)
    assert configs.from_dict(TrainConfig, configs.to_dict(cfg)) == cfg
    other = dataclasses.replace(cfg.data.blend[0], cache="/moved", weight=1.0)
    recipes = (other, *cfg.data.blend[1:])
    changed = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, blend=recipes))
    assert configs.differences(configs.to_dict(cfg), changed) == [
        "data.blend.0.weight: saved 2.5, now 1.0"
    ]


def test_the_published_labels_are_read_with_the_prompts_of_the_other_recipes():
    cfg = configs.from_cli(["published@labels"], TrainConfig)
    assert cfg.data.prompts.absent_share
    with pytest.raises(UserError, match="labels"):  # that are not there yet
        pipeline.examples(named_recipe(cfg.data, "labels"), RATE, HOP)


def test_a_residual_may_be_several_kinds_at_once(world):
    for mixture in mixtures(world, recipes=(("speech", "speech+sfx", 1.0),)):
        claims = mixture.residual_claims
        assert any("klingon" in claim for claim in claims)
        assert any("humming" in claim for claim in claims)
        assert not mixture.residual_texts
    with pytest.raises(UserError, match="a residual may be a sum"):
        toy.config(world, recipes=(("speech", "speech+stem", 1.0),))


def test_a_sound_begins_anywhere_if_asked(world):
    fields = {"recipes": (("speech", "sfx", 1.0),), "speed_share": 0.0, "seconds": 0.5}
    for random_start in (False, True):
        drawn = mixtures(world, **fields, target_repeats=0.0, random_start=random_start)
        starts = [place.start for one in drawn for place in one.target_places]
        assert (max(starts) > 0.5 * RATE) == random_start


def test_spans_may_be_above_the_published_level(world):
    wave = np.concatenate([np.full(RATE, 0.02), np.full(RATE, 0.005)]).astype(np.float32)
    assert energy.activity(wave, RATE, HOP).all()
    absolute = energy.activity(wave, RATE, HOP, absolute=True)
    assert absolute.tolist() == [True] * 25 + [False] * 25
    quiet = {"level_db": (-60.0, -60.0), "silence": "absolute"}
    assert not any(one.activities(RATE, HOP)[0].any() for one in mixtures(world, 3, **quiet))


def test_rooms_and_codecs_change_a_sound_and_neither_moves_nor_clips_it(world, tmp_path):
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(4_000) / 800) * rng.normal(size=4_000)
    soundfile.write(
        tmp_path / "room.wav", np.concatenate([np.zeros(300), [9], 0.3 * decay]) / 10, RATE
    )
    plain = {"recipes": (("sfx", "instrument", 1.0),), "second_share": 0.0}
    changes = (
        {"reverb_share": 1.0, "impulse_responses": (str(tmp_path),)},
        {"coded_share": 1.0, "codecs": ("vorbis",)},
        {"coded_share": 1.0, "codecs": ("mp3",)},
    )
    before = mixtures(world, 4, **plain)
    for change in changes:
        for one, other in zip(before, mixtures(world, 4, **plain, **change), strict=True):
            assert np.abs(other.mixture).max() <= 0.951
            np.testing.assert_array_equal(other.mixture, other.target + other.residual)
            assert other.target.any()
            assert (one.target != other.target).any()
    wave = np.zeros(RATE, np.float32)
    wave[2_000:6_000] = 0.8 * np.sin(0.3 * np.arange(4_000)) * np.hanning(4_000)
    for name in ("vorbis", "mp3"):
        out = coded(wave, RATE, (name,), np.random.default_rng(1))
        lag = np.argmax(np.correlate(out, wave, "full")) - (len(wave) - 1)
        assert abs(lag) <= 1, name
        assert np.corrcoef(out, wave)[0, 1] > 0.95


def test_a_table_of_plausible_pairs_decides_the_residual(world, tmp_path):
    table = tmp_path / "pairs.jsonl"
    write_jsonl(table, [{"target": "humming", "residual": "horn 3"}])
    fields = {"recipes": (("sfx", "instrument", 1.0),), "plausible_share": 1.0}
    for mixture in mixtures(world, 6, **fields, plausible=str(table)):
        assert mixture.residual_texts[0] == "horn 3 playing"
    write_jsonl(table.with_name("bad.jsonl"), [{"target": "humming"}])
    with pytest.raises(UserError, match=r"bad\.jsonl line 1 needs the phrases"):
        mixtures(world, 1, **fields, plausible=str(table.with_name("bad.jsonl")))
    with pytest.raises(UserError, match=r"plausible_share=1\.0 needs data\.mix\.plausible"):
        toy.config(world, **fields)
