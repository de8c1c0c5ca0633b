"""A judge is trained on a table of ratings, evaluated and saved."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from sam_audio_jax import audio, parallel
from sam_audio_jax.cli import train_judge
from sam_audio_jax.convert.judge import load_judge, save_judge
from sam_audio_jax.convert.pe_a_frame import load_span_predictor
from sam_audio_jax.data.ratings import (
    RatedExamples,
    RatingsConfig,
    check_sounds,
    clip,
    load_ratings,
    rating_statistics,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import judge_in_training
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.scorers.judge import AXES, Judge, JudgeConfig
from sam_audio_jax.train import judge_start
from sam_audio_jax.train.config import CheckpointConfig, JudgeTrainConfig, OptimConfig
from sam_audio_jax.train.judge_cache import frozen_stage, open_judge_cache
from sam_audio_jax.train.judge_objective import (
    axis_errors,
    contrast_loss,
    make_judge_training,
    scores_of,
    split_judge,
)
from sam_audio_jax.workdir import Workdir
from tests import tiny

RATE, HOP = tiny.JUDGE.sample_rate, tiny.JUDGE.hop
FILE = """
from sam_audio_jax.data.ratings import RatingsConfig
from sam_audio_jax.train.config import JudgeTrainConfig, OptimConfig
from tests import tiny

CONFIG = JudgeTrainConfig(
    judge=tiny.JUDGE,
    data=RatingsConfig(seconds=0.32, text_tokens=8),
    optim=OptimConfig(peak_lr=1e-2, warmup_steps=1, ema_decay=0.9),
    frozen=("wave_encoder",),
    random_frozen=True,
    batch=4,
    steps=160,
    eval_every=1000,
    log_every=40,
)
"""


def write_table(folder: pathlib.Path, lines=None, count: int = 6) -> pathlib.Path:
    """A table of clips whose ratings follow from how loud the separated sound is."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rated = []
    for number in range(count):
        gain = (number + 1) / count
        wave = rng.standard_normal((2, 50 + 9 * number)).astype(np.float32)
        for name, samples in zip(("mixture", "separated"), wave, strict=True):
            soundfile.write(folder / f"{number}.{name}.wav", 0.3 * gain * samples, RATE, "FLOAT")
        rating = 1 + 4 * gain
        rated.append(
            {
                "mixture": f"{number}.mixture.wav",
                "separated": f"{number}.separated.wav",
                "text": "rain",
                "domain": "sound" if number % 2 else "speech",
                "system": "abc"[number % 3],
                "ratings": {axis: [rating, None, min(5, rating + 0.5)] for axis in AXES},
            }
        )
    del rated[0]["ratings"]["recall"]
    table = folder / "ratings.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines or rated))
    return table


@pytest.mark.long
def test_a_run_learns_is_evaluated_and_saved(tmp_path, monkeypatch):
    # Random weights that are drawn without compiling.
    monkeypatch.setattr(judge_start.parallel, "init_sharded", lambda make, mesh: tiny.filled(make))
    table = write_table(tmp_path / "data")
    (tmp_path / "experiment.py").write_text(FILE)
    tables = ["--data.table", str(table), "--data.valid-table", str(table)]
    command = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "run"), *tables]
    assert train_judge.main(command) == 0
    metrics = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in metrics if line["group"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    (result,) = [line for line in metrics if line["group"] == "eval"]
    assert result["pcc/utterance/overall/all"] > 0.5
    assert {"srcc/system/recall/all", "pcc/utterance/faithfulness/speech"} <= set(result)
    stored = json.loads((tmp_path / "run" / "eval" / "160" / "agreement.json").read_text())
    one = stored["correlations"][0]
    assert one["low"] <= one["value"] <= one["high"]
    assert (one["axis"], one["n"]) == ("overall", 6)
    judge, tokenizer = load_judge(tmp_path / "run" / "judge")
    assert (judge.config, tokenizer) == (tiny.JUDGE, "byt5")
    mean, std = rating_statistics(load_ratings(str(table), RatingsConfig()))
    np.testing.assert_allclose(judge.mean[...], mean, rtol=1e-6)
    np.testing.assert_allclose(judge.std[...], std, rtol=1e-6)


@pytest.mark.long
def test_encoders_first_then_the_rest_on_what_they_make(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_start.parallel, "init_sharded", lambda make, mesh: tiny.filled(make))
    table = write_table(tmp_path / "data")
    (tmp_path / "experiment.py").write_text(FILE)
    shared = ["--data.table", str(table), "--data.cache", str(tmp_path / "cache"), "--steps", "4"]
    first = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "first"), *shared]
    assert train_judge.main([*first, "--loss", "contrast"]) == 0
    start, _ = load_judge(tmp_path / "first" / "judge")
    np.testing.assert_array_equal(start.std[...], 1)  # no rating was read
    parts = ("wave_encoder", "project", "audio", "text", "widen_text")
    second = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "second"), *shared]
    second += ["--init-from", str(tmp_path / "first" / "judge"), "--rescale", "--frozen", *parts]
    assert train_judge.main([*second, "--data.valid-table", str(table)]) == 0
    judge, _ = load_judge(tmp_path / "second" / "judge")
    _, std = rating_statistics(load_ratings(str(table), RatingsConfig()))
    np.testing.assert_allclose(judge.std[...], std, rtol=1e-6)
    before, after = (dict(nnx.to_flat_state(nnx.state(one))) for one in (start, judge))
    for path, leaf in before.items():
        same = np.array_equal(leaf[...], after[path][...])
        assert same == (path[0] in parts), path
    assert len(list((tmp_path / "cache").iterdir())) == 2  # latents, then frames


def test_a_step_has_the_shapes_of_its_state_and_frozen_parts_are_no_parameters(tmp_path):
    config = JudgeTrainConfig(
        judge=tiny.JUDGE,
        data=RatingsConfig(seconds=0.32, text_tokens=8),
        random_frozen=True,
        mesh=MeshConfig(fsdp=1),
    )
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
    state, step, frozen = make_judge_training(config, judge, mesh)
    assert set(frozen) == set(config.frozen)
    assert set(state.params) == set(nnx.state(judge)) - set(config.frozen)
    pairs = load_ratings(str(write_table(tmp_path)), config.data)
    example = RatedExamples(config.data, pairs, tiny.JUDGE)[0]
    batch = {name: np.stack([value] * 2) for name, value in example.items()}
    after, metrics = jax.eval_shape(step, state, batch, frozen)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert {f"loss_{axis}" for axis in AXES} < set(metrics)


def test_the_metric_that_chooses_is_no_number_where_it_is_not_defined(tmp_path):
    """A run goes on over an evaluation of a judge that gives all sounds one score."""
    pairs = load_ratings(str(write_table(tmp_path)), RatingsConfig())
    best, equal = "pcc/utterance/overall/all", np.full((len(pairs), len(AXES)), 3.0)
    found = judge_in_training.numbers_of([], equal, pairs, best)
    assert math.isnan(found[best])
    assert found["mae/overall/all"] > 0
    assert best not in judge_in_training.numbers_of([], equal, pairs, "")
    # One that no evaluation can have is refused before the training.
    unrated = [LINE | {"ratings": {"overall": rating}} for rating in (1, 2, 3)]
    pairs = load_ratings(str(write_table(tmp_path, unrated)), RatingsConfig())
    for metric, allowed in (("mae/overall/all", True), ("mae/recall/all", False)):
        cfg = training(checkpoint=CheckpointConfig(best_metric=metric))
        refused = pytest.raises(UserError, match=f"{metric} is not evaluated; allowed: ")
        with contextlib.nullcontext() if allowed else refused:
            judge_in_training.check_best_metric(cfg, pairs)


def test_missing_ratings_do_not_count():
    scores = jnp.array([[1.0, 0, 0, 2], [0, 0, 0, 0]])
    rated = jnp.array([[True, True, False, True], [True, False, False, True]])
    wanted = jnp.array([[0.0, 3, 9, 0], [1, 9, 9, 0]])
    errors, counted = axis_errors(scores, wanted, rated, "l1")
    np.testing.assert_allclose(errors, [1, 3, 0, 1])
    assert counted.tolist() == [True, True, False, True]
    np.testing.assert_allclose(axis_errors(scores, wanted, rated, "mse")[0], [1, 9, 0, 2])
    grads = jax.grad(lambda s: jnp.sum(axis_errors(s, wanted * jnp.nan, rated & False, "mse")[0]))
    assert not np.any(np.asarray(grads(scores)))


def test_examples_are_functions_of_their_index(tmp_path):
    config = RatingsConfig(seconds=0.32, text_tokens=8)
    pairs = load_ratings(str(write_table(tmp_path)), config)
    examples = RatedExamples(config, pairs, tiny.JUDGE)
    assert examples.frames == 8
    round_one = [examples[index] for index in range(len(pairs))]
    assert sorted(x["ratings"][0] for x in round_one) == sorted(pair.target[0] for pair in pairs)
    for name, value in examples[3].items():
        np.testing.assert_array_equal(value, round_one[3][name])
    first = examples.example(0)
    assert first["valid"].sum() == -(-50 // HOP)
    assert not first["separated"][first["valid"].sum() * HOP :].any()
    assert first["rated"].tolist() == [True, False, True, True]
    assert np.isclose(first["ratings"][0], np.mean([1 + 4 / 6, 1 + 4 / 6 + 0.5]))


LINE = {"mixture": "0.mixture.wav", "separated": "0.separated.wav", "text": "rain"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratings": {"overall": [3, 6]}}, r"line 2: overall has the rating 6; allowed are 1 to 5"),
        ({"ratings": {"overall": [None], "recall": []}}, "line 2 has no rating on any axis"),
        ({"ratings": {"clarity": 3}}, "ratings must be an object of overall, recall"),
        ({"ratings": {"overall": "good"}}, "overall must be a number or a list of numbers"),
        ({"ratings": {"overall": True}}, "overall must be a number or a list of numbers"),
        ({"ratings": None}, "ratings must be an object"),
        ({"text": " "}, "'text' is missing or has no words"),
        ({"separated": "no.wav"}, "'separated': no sound file at"),
        ({"score": 3}, "line 2: unknown field score, allowed are mixture"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, changes, message):
    good = LINE | {"ratings": {"overall": 3}}
    table = write_table(tmp_path, [good, good | changes])
    with pytest.raises(UserError, match=message):
        load_ratings(str(table), RatingsConfig())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (None, "0.separated.wav cannot be decoded as sound"),
        (0, "0.separated.wav has no samples"),
        (3, "0.separated.wav has 3 samples at 200 Hz, too few for the judge"),
        (40, "0.separated.wav: the mixture has 50 samples, the separated sound 40; both must"),
    ],
)
def test_broken_sounds_are_found_before_a_workdir_is_made(tmp_path, samples, message, capsys):
    table = write_table(tmp_path / "data")
    sound = tmp_path / "data" / "0.separated.wav"
    if samples is None:
        sound.write_text("no sound")
    else:
        soundfile.write(sound, np.zeros(samples, np.float32), RATE)
    (tmp_path / "experiment.py").write_text(FILE)
    command = [str(tmp_path / "experiment.py"), "--workdir", str(tmp_path / "run")]
    whole = write_table(tmp_path / "whole")
    for tables in ((table, whole), (whole, table)):
        names = ["--data.table", str(tables[0]), "--data.valid-table", str(tables[1])]
        assert train_judge.main([*command, *names]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert train_judge.main([*command, "--data.table", str(whole), "--data.tokenizer", "no"]) == 2
    assert "no tokenizer 'no'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_recordings_that_are_cut_must_have_one_length_too(tmp_path):
    """A mixture beside the result of a part of it: their beginnings are not of one time."""
    pairs = load_ratings(str(write_table(tmp_path)), RatingsConfig())[:1]
    config = RatingsConfig(seconds=0.16)  # 32 samples, 4 frames
    for samples, allowed in ((50, True), (42, True), (58, True), (41, False), (59, False)):
        soundfile.write(pairs[0].separated, np.zeros(samples, np.float32), RATE)
        if allowed:
            check_sounds(pairs, config, tiny.JUDGE)
            continue
        message = f"has 50 samples at 200 Hz, the separated sound {samples}; both must be of the"
        with pytest.raises(UserError, match=message):
            check_sounds(pairs, config, tiny.JUDGE)


def test_what_cannot_be_trained_is_the_users_error(tmp_path, capsys):
    table = write_table(tmp_path, [LINE | {"ratings": {"overall": 3}}] * 3)
    pairs = load_ratings(str(table), RatingsConfig())
    with pytest.raises(UserError, match="3 of 3 rated pairs have a rating for overall; there must"):
        rating_statistics(pairs)
    for loss, rescale in (("l1", False), ("contrast", True)):  # no statistics are needed
        start = training(init_from="judge", rescale=rescale, loss=loss)
        np.testing.assert_array_equal(train_judge.scale_of(start, pairs), [[0] * 4, [1] * 4])
    for start in (training(), training(init_from="judge", rescale=True)):
        with pytest.raises(UserError, match="3 of 3 rated pairs"):
            train_judge.scale_of(start, pairs)
    config = tmp_path / "experiment.py"
    config.write_text(FILE)
    assert train_judge.main([str(config), "--workdir", str(tmp_path / "run")]) == 2
    assert "data.table is empty: name a table" in capsys.readouterr().err
    command = [str(config), "--workdir", str(tmp_path / "run"), "--data.table", str(table)]
    best = ["--checkpoint.best-metric", "pcc/utterance/recall/al"]
    assert train_judge.main([*command, *best]) == 2
    assert "is not evaluated, as data.valid_table is empty" in capsys.readouterr().err
    rated = write_table(tmp_path / "rated")
    assert train_judge.main([*command, *best, "--data.valid-table", str(rated)]) == 2
    printed = capsys.readouterr().err
    assert "recall/al is not evaluated; allowed: pcc/utterance/overall/all, " in printed
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="frozen has wave_encoder, but no weights of it are named"):
        JudgeTrainConfig()
    with pytest.raises(UserError, match="init_from and codec_from both name weights"):
        JudgeTrainConfig(init_from="a", codec_from="b")
    with pytest.raises(UserError, match="vectors_from=b has no effect beside init_from=a"):
        JudgeTrainConfig(init_from="a", vectors_from="b")
    config = JudgeTrainConfig(judge=tiny.JUDGE, codec_from="tiny", frozen=("wave_encoder",))
    with pytest.raises(UserError, match=r"codec_from=tiny has sample_rate 16000 instead of 200"):
        judge_start.initial_judge(config, np.zeros(4), np.ones(4))


def test_a_run_does_not_go_on_beside_other_frozen_weights(tmp_path, monkeypatch):
    """Which no checkpoint has; `init_from` may be a folder that another run writes anew."""
    config = training(init_from="start", frozen=("wave_encoder",))
    judges = [tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)), seed) for seed in (0, 5)]
    first, second = (nnx.as_pure(split_judge(judge, config)[1]) for judge in judges)
    workdir = Workdir(tmp_path)
    kept = train_judge.kept_frozen(workdir, config, first)
    assert list(kept) == ["frozen"]
    monkeypatch.setattr(Workdir, "kept_in_checkpoint", lambda self, name: kept[name])
    assert train_judge.kept_frozen(workdir, config, first) == kept
    with pytest.raises(UserError, match=r"frozen weights \w+; init_from=start has the weights"):
        train_judge.kept_frozen(workdir, config, second)
    assert not train_judge.kept_frozen(workdir, training(), second)  # random, for tests


def test_the_tokenizer_is_that_of_the_start_unless_one_is_named(tmp_path):
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    save_judge(tmp_path / "start", judge, "byt5")
    start = training(data={"tokenizer": ""}, init_from=str(tmp_path / "start"))
    assert judge_start.with_tokenizer(start).data.tokenizer == "byt5"
    named = training(data={"tokenizer": "other"}, init_from=str(tmp_path / "start"))
    assert judge_start.with_tokenizer(named) == named
    with pytest.raises(UserError, match=r"data\.tokenizer is empty: name a tokenizer"):
        judge_start.with_tokenizer(training(data={"tokenizer": ""}))


@pytest.mark.golden
def test_encoders_of_a_span_predictor_are_taken_as_they_are(fixtures_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_start.parallel, "init_sharded", lambda make, mesh: tiny.filled(make))
    source = fixtures_dir.resolve() / "pe_a_frame"
    (tmp_path / "config.json").symlink_to(source / "config.json")
    (tmp_path / "model.safetensors").symlink_to(source / "weights.safetensors")
    spans, _ = load_span_predictor(tmp_path, waves=True)
    theirs = spans.config
    sizes = {name: getattr(theirs, name) for name in ("audio", "text", "channels", "sample_rate")}
    sizes |= {name: getattr(theirs, name) for name in ("encoder_dim", "encoder_rates")}
    latent_dim = theirs.encoder_dim * 2 ** len(theirs.encoder_rates)
    config = JudgeConfig(**sizes, latent_dim=latent_dim, scoring=tiny.JUDGE.scoring, bottleneck=6)
    training = JudgeTrainConfig(judge=config, encoders_from=str(tmp_path))
    judge = judge_start.initial_judge(training, np.full(4, 3.0), np.ones(4))
    ours, wanted = (
        {path: np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(network))}
        for network in (judge, spans)
    )
    copied = [path for path in wanted if path[0] in training.frozen]
    assert {path[0] for path in copied} == set(training.frozen)
    for path in copied:
        got = ours.get(path)
        if path[0] == "wave_encoder" and path[-1] == "kernel":
            kernel = ours[*path[:-1], "direction"]
            length = np.sqrt(np.square(kernel).sum(axis=(0, 1)))
            got = ours[*path[:-1], "scale"] / length * kernel
        np.testing.assert_allclose(got, wanted[path], rtol=1e-5, atol=1e-8, err_msg=str(path))
    np.testing.assert_array_equal(ours["mean",], np.full(4, 3.0))
    other = dataclasses.replace(config, channels=config.channels + 1)
    with pytest.raises(UserError, match=f"has channels {theirs.channels} instead of"):
        judge_start.initial_judge(
            dataclasses.replace(training, judge=other), np.zeros(4), np.ones(4)
        )


def training(**changes) -> JudgeTrainConfig:
    return JudgeTrainConfig(
        judge=tiny.JUDGE,
        data=RatingsConfig(seconds=0.32, text_tokens=8, **changes.pop("data", {})),
        random_frozen=True,
        **changes,
    )


def test_channels_that_cancel_are_mixed_as_in_a_separation(tmp_path):
    """Those of a separated sound as those of its mixture, where they are as many."""
    rng = np.random.default_rng(0)
    sides = 0.1 * rng.standard_normal((16_000, 1)) * np.array([[1.0, -1.0]])
    voice = np.sin(np.arange(16_000) * 0.1)[:, None] * np.array([[0.01, 0.005]])
    one = {"mixture": sides + voice, "separated": voice, "alone": voice[:, :1]}
    for name, samples in one.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, "FLOAT")
    mixture = str(tmp_path / "mixture.wav")
    loaded = audio.load(mixture)
    weights = audio.mixing_weights(loaded.samples, 16_000)
    assert not audio.is_mean(weights)
    for name, samples in one.items():
        mixed = samples @ weights if samples.shape[1] == 2 else samples[:, 0]
        found = clip(str(tmp_path / f"{name}.wav"), 16_000, mixture)
        np.testing.assert_allclose(found, mixed, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("stage", ["latents", "frames"])
def test_scores_from_encoded_sounds_are_those_from_waves(tmp_path, stage):
    parts = {"latents": ("wave_encoder",), "frames": ("wave_encoder", "project", "audio")}
    config = training(frozen=parts[stage], data={"cache": str(tmp_path / "cache")})
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    pairs = load_ratings(str(write_table(tmp_path / "data", count=3)), config.data)
    assert frozen_stage(config) == stage
    assert frozen_stage(training(frozen=())) == ""
    assert open_judge_cache(training(frozen=()), judge, pairs) is None
    with pytest.raises(UserError, match="frozen has no wave_encoder"):
        open_judge_cache(training(frozen=(), data={"cache": "x"}), judge, pairs)
    encoded = open_judge_cache(config, judge, pairs[:1])
    encoded = open_judge_cache(config, judge, pairs)  # adds what is missing
    assert encoded is not None
    assert encoded.stage == stage
    shards = sorted((tmp_path / "cache").glob("*/0*"))
    assert len(shards) == 2
    again = open_judge_cache(config, judge, pairs)
    assert again is not None
    assert sorted((tmp_path / "cache").glob("*/0*")) == shards
    graph, frozen, params = split_judge(judge, config)
    scores = []
    for examples, kind in (
        (RatedExamples(config.data, pairs, tiny.JUDGE), ""),
        (RatedExamples(config.data, pairs, tiny.JUDGE, encoded), stage),
    ):
        rows = [examples.example(number) for number in range(3)]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        scores.append(np.asarray(scores_of(graph, kind)(frozen, params, batch)))
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)  # float16 on the disk
    before = encoded[pairs[0].separated]
    shutil.copy(pairs[1].separated, pairs[0].separated)  # another sound under the same name
    clip.cache_clear()  # as in another process
    changed = open_judge_cache(config, judge, pairs)
    assert changed is not None
    assert not np.array_equal(changed[pairs[0].separated], before)
    np.testing.assert_array_equal(changed[pairs[0].separated], encoded[pairs[1].separated])
    shutil.rmtree(shards[0])  # as by hand
    restored = open_judge_cache(config, judge, pairs)
    assert restored is not None
    np.testing.assert_array_equal(restored[pairs[0].mixture], changed[pairs[0].mixture])


def test_the_contrast_is_low_where_sounds_and_texts_agree():
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    ids = jnp.array([[1, 2, 0], [3, 0, 0], [3, 0, 0], [4, 5, 6]])
    vectors = jnp.eye(8)[jnp.array([0, 1, 1, 2])]

    def loss(sounds):
        batch = {"separated": jnp.repeat(sounds[:, None], 2, axis=1), "text_ids": ids}
        batch |= {"text_mask": ids > 0, "valid": jnp.ones((4, 2), bool)}
        return float(contrast_loss(judge, batch, "frames"))

    object.__setattr__(judge, "widen_text", lambda x: vectors)
    right, wrong = loss(vectors), loss(vectors[jnp.array([1, 0, 0, 3])])
    # The two rows of one text are both right, each with half the weight.
    np.testing.assert_allclose(right, np.log(2) / 2, atol=1e-4)
    assert wrong > 5
    for changes in ({"batch": 1}, {"optim": OptimConfig(accumulate=2)}):  # nothing, fewer rows
        with pytest.raises(UserError, match="loss=contrast compares the rows of a batch"):
            training(loss="contrast", **changes)


def test_word_vectors_are_the_frozen_embeddings_of_the_text_model(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((384, 10)) * np.arange(10, 0, -1)
    monkeypatch.setattr(judge_start, "find_word_vectors", lambda name: tmp_path)
    state = {"shared.weight": vectors.astype(np.float16)}
    monkeypatch.setattr(judge_start, "read_word_vectors", lambda folder: ({}, state, {}))
    config = training(frozen=("text_vectors",), vectors_from="wordllama")
    found = judge_start._vectors(config)["text", "embed", "embedding"]
    assert found.shape == (384, 8)
    lost = np.square(vectors).sum() - np.square(np.asarray(found, np.float64)).sum()
    assert 0 < lost < 0.03 * np.square(vectors).sum()  # the directions that vary least
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    _, frozen, params = split_judge(judge, config)
    paths = [path for path, _ in nnx.to_flat_state(frozen)]
    assert paths == [("text", "embed", "embedding")]
    assert len(nnx.to_flat_state(params)) == len(nnx.to_flat_state(nnx.state(judge))) - 1
    state["shared.weight"] = vectors[:100].astype(np.float16)
    with pytest.raises(UserError, match="has 100 vectors of 10; the judge's text model has 384 of"):
        judge_start._vectors(config)
    with pytest.raises(UserError, match="frozen has text_vectors, but no weights of it are named"):
        JudgeTrainConfig(frozen=("text_vectors",))
