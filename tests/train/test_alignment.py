"""Training with alignment: which weights change, what is saved, and how it is loaded."""

import dataclasses
import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.codec import save_codec_folder
from sam_audio_jax.convert.load import convert, load_networks
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.cnn14 import Cnn14Config
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.representation_alignment import alignment_loss
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import AlignmentConfig
from sam_audio_jax.train.frozen import make_teacher
from sam_audio_jax.train.objective import make_separator_training, teacher_frames
from sam_audio_jax.workdir import Workdir
from tests.tiny import filled

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]
TEACHER = Cnn14Config(
    **{"sample_rate": 400, "window": 32, "hop": 8, "mels": 8, "low_hz": 10.0, "high_hz": 200.0},
    widths=(2, 3, 4),
    classes=5,
)
ALIGNED = dataclasses.replace(
    TINY,
    alignment=AlignmentConfig(
        weight=0.5, layer=1, hidden=8, teacher_checkpoint="random", teacher=TEACHER
    ),
    steps=4,
    log_every=2,
)
FRAMES, TOKENS = 25, 8


def mesh():
    return parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def codec():
    return filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))


@pytest.fixture(scope="module")
def training(codec):
    """State, step and frozen weights of a run on latents with cached features."""
    config = dataclasses.replace(ALIGNED, data=dataclasses.replace(TINY.data, cache="features"))
    return make_separator_training(config, codec, mesh())


def batch(waves=False):
    rng = np.random.default_rng(0)
    shape = (8, FRAMES * TINY.codec.hop) if waves else (8, FRAMES, 4)
    stems = dict(zip(("mixture", "target", "residual"), rng.normal(size=(3, *shape)), strict=True))
    return {name: stem.astype(np.float32) for name, stem in stems.items()} | {
        "valid": np.arange(FRAMES) < np.full((8, 1), FRAMES - 2),
        "text_ids": rng.integers(3, 200, size=(8, TOKENS)).astype(np.int32),
        "text_mask": np.ones((8, TOKENS), bool),
        "anchors": np.zeros((8, FRAMES), np.int32),
    }


def features(size=4):
    rng = np.random.default_rng(1)
    return {
        "teacher_features": rng.normal(size=(8, 14, size)).astype(np.float16),
        "teacher_features_offset": np.arange(8, dtype=np.float32) / 4,
    }


class Cached:
    """The same latents with features at every step."""

    def __init__(self):
        self.count = 0

    def __next__(self):
        self.count += 1
        return batch() | features()

    def get_state(self):
        return {"batches": self.count}

    def set_state(self, state):
        self.count = state["batches"]


def test_only_the_aligned_run_has_a_head_and_the_rest_starts_the_same(codec, training):
    plain, _, _ = make_separator_training(TINY, codec, mesh())
    assert set(training[0].params) == {"text_encoder", "separator", "alignment"}
    assert set(plain.params) == {"text_encoder", "separator"}
    for name in plain.params:
        jax.tree.map(np.testing.assert_array_equal, plain.params[name], training[0].params[name])
    assert set(training[2]) == {"codec"}  # with a cache no teacher runs


def test_the_teacher_gets_the_clean_target_and_learns_nothing():
    teacher = make_teacher(ALIGNED.alignment)
    waves = {name: jnp.asarray(rows) for name, rows in batch(waves=True).items()}
    graph, weights = nnx.split(teacher)

    def loss(weights, waves):
        frames = teacher_frames(nnx.merge(graph, weights), waves, ALIGNED)
        return alignment_loss(jnp.ones_like(frames), frames, waves["valid"]), frames

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grads, frames = gradient(weights, waves)
    assert all(not np.any(grad) for grad in jax.tree.leaves(grads))
    # 0.08 s a segment, two frames of 0.04 s
    compiled = jax.jit(teacher.features, static_argnums=1)
    segments = compiled(waves["target"], TINY.codec.sample_rate)
    want = np.repeat(segments, 2, axis=1)[:, :FRAMES]
    np.testing.assert_allclose(frames[:, : want.shape[1]], want, atol=1e-5)
    assert np.abs(want).max() > 0
    other = waves | {"mixture": waves["residual"], "residual": waves["mixture"]}
    np.testing.assert_array_equal(gradient(weights, other)[1], frames)


def test_cached_features_are_used_unchanged_and_latents_alone_refused():
    rows = {name: jnp.asarray(values) for name, values in (batch() | features()).items()}
    frames = teacher_frames(None, rows, ALIGNED)
    segment = (np.arange(FRAMES)[None] + rows["teacher_features_offset"][:, None]) / 2
    want = np.take_along_axis(
        np.asarray(rows["teacher_features"]), segment.astype(int)[..., None], axis=1
    )
    np.testing.assert_array_equal(frames, want.astype(np.float32))
    with pytest.raises(UserError, match="has no features of the teacher"):
        teacher_frames(None, jax.tree.map(jnp.asarray, batch()), ALIGNED)
    with pytest.raises(UserError, match="has features of 3 numbers"):
        teacher_frames(None, rows | jax.tree.map(jnp.asarray, features(3)), ALIGNED)


def test_impossible_settings_are_the_users_error():
    with pytest.raises(UserError, match=r"alignment\.weight=1\.0 needs a teacher"):
        dataclasses.replace(TINY, alignment=AlignmentConfig(weight=1.0))
    with pytest.raises(UserError, match=r"alignment\.layer=3 must be at most separator\.dit\.dept"):
        dataclasses.replace(TINY, alignment=AlignmentConfig(layer=3))
    with pytest.raises(UserError, match=r"alignment\.weight=-1\.0"):
        AlignmentConfig(weight=-1.0)
    with pytest.raises(UserError, match="no Cnn14 checkpoint at gone"):
        make_teacher(AlignmentConfig(teacher_checkpoint="gone.pth"))
    assert [AlignmentConfig().layer_of(depth) for depth in (1, 12, 16, 22)] == [1, 4, 5, 7]


def test_an_aligned_run_resumes_and_is_read_without_its_head(training, codec, tmp_path, same):
    start, step, frozen = training
    config = dataclasses.replace(ALIGNED, data=dataclasses.replace(TINY.data, cache="features"))
    train = functools.partial(
        loop.train_and_evaluate, step=step, mesh=mesh(), frames_per_step=8 * FRAMES, frozen=frozen
    )

    def run(name, steps):
        state = jax.tree.map(jnp.copy, start)
        some = dataclasses.replace(config, steps=steps)
        return train(some, workdir=tmp_path / name, state=state, batches=Cached())

    whole = run("whole", 4)
    run("resumed", 2)
    assert same(run("resumed", 4).params, whole.params)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start.params, whole.params)
    assert min(jax.tree.leaves(moved["alignment"])) > 0
    line = Workdir(tmp_path / "whole").read_metrics()[-1]
    assert line["loss"] == pytest.approx(line["flow"] + 0.5 * line["alignment"], rel=1e-5)

    save_codec_folder(tmp_path / "whole" / "codec", codec)
    _, prompted, _, _ = load_networks(str(tmp_path / "whole"))
    assert prompted.alignment is None
    weights = nnx.as_pure(nnx.state(prompted))
    assert set(weights) == {"text_encoder", "separator"}
    assert all(same(weights[name], whole.ema[name]) for name in weights)
    assert not convert(str(tmp_path / "whole"), str(tmp_path / "exported"))
    again = load_networks(str(tmp_path / "exported"))[1]
    written = nnx.as_pure(nnx.state(again))
    assert all(same(written[name], weights[name]) for name in weights)
    on, _, _ = make_separator_training(config, codec, mesh(), again)  # with a new alignment head
    assert set(on.params) == set(start.params)
    assert same(on.params["separator"], weights["separator"])


def test_a_step_on_waves_runs_the_teacher(codec):
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    state, step, frozen = make_separator_training(ALIGNED, codec, mesh(), start)
    assert set(frozen) == {"codec", "teacher"}
    _, metrics = jax.jit(step)(state, batch(waves=True), frozen)
    assert np.isfinite(metrics["alignment"])
    assert 0 < metrics["alignment"] < 2
