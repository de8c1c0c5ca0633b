"""Configs that earlier versions saved become configs of today."""

import copy
import dataclasses

import pytest

from sam_audio_jax.config import differences, from_dict, to_dict
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.pipeline import recipe
from sam_audio_jax.saved_config import migrated_recipe, migrated_run
from sam_audio_jax.train.config import CodecTrainConfig, TrainConfig

PARTS = ("source", "mix", "prompts", "batches")


def flat(data: dict) -> dict:
    """The data section as it was before it had parts."""
    rest = {name: value for name, value in data.items() if name not in PARTS}
    return {k: v for part in PARTS for k, v in data.get(part, {}).items()} | rest


@pytest.mark.parametrize("cls", [TrainConfig, CodecTrainConfig])
def test_every_flat_field_finds_its_part(cls):
    today = {"experiment": cls.__name__, "config": to_dict(cls())}
    saved = copy.deepcopy(today)
    saved["config"]["data"] = flat(saved["config"]["data"])
    assert not set(saved["config"]["data"]) & set(PARTS)
    assert migrated_run(saved) == today
    assert migrated_run(today) == today
    assert from_dict(cls, migrated_run(saved)["config"]) == cls()


def test_a_field_that_differs_is_named_as_it_is_today():
    saved = {"experiment": "TrainConfig", "config": to_dict(TrainConfig())}
    saved["config"]["data"] = flat(saved["config"]["data"]) | {"tilt_db": 3.0}
    assert differences(migrated_run(saved)["config"], TrainConfig()) == [
        "data.mix.tilt_db: saved 3.0, now 6.0"
    ]


def test_the_recipe_of_an_old_cache():
    config = dataclasses.replace(DataConfig(), seed=3)
    parts = recipe(config)
    old = parts["source"] | parts["mix"] | {"seed": 3}
    assert migrated_recipe(old) == parts
    assert migrated_recipe(parts) == parts


def test_other_runs_stay_as_they_are():
    for run in ({}, {"experiment": "RunConfig", "config": {"data": {"split": "x"}}}):
        assert migrated_run(run) == run
