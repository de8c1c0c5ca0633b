"""An audio tower is trained on a latent cache, evaluated on another one, and saved."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax import config
from sam_audio_jax.cli import train_audio_text
from sam_audio_jax.cli.train_audio_text import check_sizes, check_space
from sam_audio_jax.convert.audio_tower import open_audio_tower, save_audio_tower
from sam_audio_jax.data.captioned_latents import CaptionedConfig, CaptionedLatents
from sam_audio_jax.encoders.audio_tower import AudioTextSpace
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.audio_text_in_training import check_best_metric, summary
from sam_audio_jax.train import audio_text_objective
from sam_audio_jax.train.audio_text_objective import caption_losses
from sam_audio_jax.train.config import AudioTextTrainConfig, CheckpointConfig
from sam_audio_jax.workdir import Workdir
from tests import audio_text, tiny

FILE = """
from sam_audio_jax.data.captioned_latents import CaptionedConfig
from sam_audio_jax.train.config import AudioTextTrainConfig, OptimConfig
from tests import audio_text

CONFIG = AudioTextTrainConfig(
    audio_tower=audio_text.TOWER,
    data=CaptionedConfig(seconds=0.32),
    optim=OptimConfig(peak_lr=3e-2, warmup_steps=1, ema_decay=0.8),
    batch=8,
    steps=40,
    eval_every=1000,
    log_every=10,
)
"""


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    write = audio_text.write_cache
    return write(folder / "train"), write(folder / "valid", 6, 100)


def test_a_tower_learns_three_kinds_of_sound_and_is_saved(caches, tmp_path, monkeypatch):
    # Random weights that are drawn without compiling.
    monkeypatch.setattr(
        audio_text_objective.parallel, "init_sharded", lambda make, mesh: tiny.filled(make)
    )
    model = audio_text.write_model(tmp_path / "model")
    (tmp_path / "experiment.py").write_text(FILE)
    command = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "run")]
    command += ["--data.cache", caches[0], "--data.valid-cache", caches[1]]
    assert train_audio_text.main([*command, "--text-checkpoint", str(model)]) == 0
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (result,) = [line for line in lines if line["group"] == "eval"]
    assert (result["top1/all"], result["chance1/all"]) == (1.0, pytest.approx(1 / 3))
    assert (result["sounds/all"], "top1/unseen" in result) == (12, False)
    stored = open_audio_tower(tmp_path / "run")  # of the workdir or of the folder in it
    assert (stored.sizes, stored.space.frames) == (audio_text.TOWER, 8)
    tower, means = stored.read(), audio_text.means()(sorted(audio_text.CAPTIONS))
    np.testing.assert_allclose(tower.length[...], np.linalg.norm(means, axis=1).mean(), rtol=1e-5)
    kept = Workdir(tmp_path / "run").kept_in_checkpoint("space")
    assert config.from_dict(AudioTextSpace, kept) == stored.space


@pytest.mark.parametrize("known_from", ["checkpoint", "tower"])
def test_a_run_does_not_go_on_between_other_networks(known_from, tmp_path, monkeypatch):
    space = audio_text.space()
    workdir = Workdir(tmp_path)
    check_space(workdir, space)  # a new run
    kept = config.to_dict(space) if known_from == "checkpoint" else None
    monkeypatch.setattr(Workdir, "steps", lambda self: [1])
    monkeypatch.setattr(Workdir, "kept_in_checkpoint", lambda self, name: kept)
    check_space(workdir, space)  # of an earlier version, before its first evaluation
    if known_from == "tower":
        save_audio_tower(workdir.audio_tower, audio_text.stored_tower())
    check_space(workdir, dataclasses.replace(space, frames=5))  # another cache of the same codec
    for changes, message in (
        ({"latents": tuple(x + 1 for x in space.latents)}, "on the latents of another codec"),
        ({"words": tuple(-x for x in space.words)}, "the word vectors of another text encoder"),
        ({"hop": space.hop * 2}, f"on latents of {space.hop} samples at "),
    ):
        with pytest.raises(UserError, match=message):
            check_space(workdir, dataclasses.replace(space, **changes))


def test_a_caption_that_may_be_true_of_a_sound_is_not_wrong():
    cosines = jnp.array([[0.9, 0.8, 0.1]])
    wrong = jnp.array([[False, False, True]])
    caption = jnp.array([1])
    loss, found = caption_losses(cosines, jnp.ones(1), caption, wrong)
    np.testing.assert_allclose(loss, np.log(1 + np.exp(0.1 - 0.8)), rtol=1e-5)
    assert found.tolist() == [True]
    _, found = caption_losses(cosines, jnp.ones(1), caption, ~wrong)
    assert found.tolist() == [False]
    gradient = jax.grad(lambda x: caption_losses(x, jnp.ones(1), caption, wrong)[0].sum())(cosines)
    assert gradient[0, 0] == 0


def test_examples_are_functions_of_their_index(caches):
    config = CaptionedConfig(seconds=0.32, noise_share=1.0)
    sounds = CaptionedLatents(config, caches[0])
    assert sounds.captions == tuple(sorted(audio_text.CAPTIONS))
    assert (len(sounds.sounds), sounds.frames) == (48, 8)
    first = [sounds[index] for index in range(3)]
    again = CaptionedLatents(config, caches[0])
    for index in (2, 0):
        for name, value in again[index].items():
            np.testing.assert_array_equal(value, first[index][name])
    one = sounds.example(0)
    assert one["wrong"].sum() == 2
    assert not one["wrong"][one["caption"]]
    assert sounds.sounds[0].texts == (sounds.captions[one["caption"]],)
    noisy = sounds.example(0, np.random.default_rng(0))
    clean = dataclasses.replace(config, noise_share=0.0)
    same = CaptionedLatents(clean, caches[0]).example(0, np.random.default_rng(0))
    added = noisy["latents"] - same["latents"]
    assert 0 < added.std() < 0.4
    held_out = CaptionedLatents(config, caches[1], ("a cat", *sounds.captions))
    assert held_out.captions[0] == "a cat"
    sounds.check_codec(held_out)


def test_ranks_are_told_apart_by_what_training_had():
    rank, among = np.array([1, 4, 9]), np.array([10, 10, 10])
    numbers = summary(rank, among, np.array([0, 5, 7]), seen=6)
    assert numbers["top5/all"] == pytest.approx(2 / 3)
    assert (numbers["top1/seen"], numbers["top5/seen"], numbers["top5/unseen"]) == (0.5, 1, 0)
    assert (numbers["chance5/unseen"], numbers["median_rank/all"]) == (0.5, 4)


def test_a_best_metric_that_no_evaluation_measures_is_refused(caches):
    """Those of captions that the training had not, too, where the held-out cache has none."""
    held_out = CaptionedLatents(CaptionedConfig(seconds=0.32), caches[1])
    cfg = AudioTextTrainConfig(checkpoint=CheckpointConfig(best_metric="top1/unseen"))
    check_best_metric(AudioTextTrainConfig(), None, 3)
    check_best_metric(cfg, held_out, 1)
    with pytest.raises(
        UserError, match=r"top1/unseen is not evaluated; allowed: top1/all, chance1"
    ):
        check_best_metric(cfg, held_out, 3)
    with pytest.raises(UserError, match=r"is not evaluated without a data\.valid_cache"):
        check_best_metric(cfg, None, 3)


def test_what_does_not_fit_is_one_line(caches, tmp_path, capsys, monkeypatch):
    (tmp_path / "experiment.py").write_text(FILE)
    command = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "run")]
    assert train_audio_text.main(command) == 2
    assert "data.cache is empty: name a cache" in capsys.readouterr().err
    assert train_audio_text.main([*command, "--data.cache", caches[0]]) == 2
    assert "text_checkpoint is empty: name a text encoder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    sounds = CaptionedLatents(CaptionedConfig(seconds=0.32), caches[0])
    tower = dataclasses.replace(audio_text.TOWER, channels=9)
    cfg = AudioTextTrainConfig(audio_tower=tower)
    with pytest.raises(UserError, match=r"audio_tower\.channels=9, but .* has latents of 8"):
        check_sizes(cfg, sounds, audio_text.means())
    cfg = AudioTextTrainConfig(audio_tower=dataclasses.replace(audio_text.TOWER, embedding=9))
    with pytest.raises(UserError, match=r"audio_tower\.embedding=9, but .* has vectors of 16"):
        check_sizes(cfg, sounds, audio_text.means())
    monkeypatch.setattr(audio_text, "CAPTIONS", ("rain",) * 3)
    alike = CaptionedLatents(sounds.config, audio_text.write_cache(tmp_path / "alike", 3))
    with pytest.raises(UserError, match="no caption that is wrong of any of its sounds, as 'rain'"):
        check_sizes(AudioTextTrainConfig(audio_tower=audio_text.TOWER), alike, audio_text.means())
    other = audio_text.write_cache(tmp_path / "other", 3, 0, lambda x: audio_text.encode(x) + 1)
    with pytest.raises(UserError, match="was made with another codec than"):
        sounds.check_codec(CaptionedLatents(sounds.config, other))
