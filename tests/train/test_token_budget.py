"""Training on batches of varying length: what padding changes, and a run that goes on."""

import dataclasses
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.data.config import BatchConfig, SourceConfig
from sam_audio_jax.data.pipeline import separation_batches
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.patcher import Patcher
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import masked_mse
from sam_audio_jax.separator.model import PromptedSeparator
from sam_audio_jax.separator.prompts import Conditions
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import TrainConfig
from sam_audio_jax.train.objective import make_separator_training
from sam_audio_jax.train.step_timer import StepTimer
from sam_audio_jax.workdir import Workdir
from tests.tiny import filled
from tests.train.metrics import untimed

TINY = runpy.run_path(str(pathlib.Path(__file__).parent / "tiny.py"))["CONFIG"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """Buckets of 12 and 25 frames (tones at 800 Hz, hop 32): 4 and 2 rows."""
    folder = tmp_path_factory.mktemp("tones")
    lines = []
    for number in range(8):
        wave = 0.3 * np.sin(2 * np.pi * 30 * (number + 1) * np.arange(800) / 800)
        soundfile.write(folder / f"{number}.wav", wave, 800)
        lines.append({"id": f"tone-{number}", "path": f"{number}.wav", "caption": f"tone {number}"})
        lines[-1] |= {"category": "sfx", "source_id": f"source-{number}", "duration": 1.0}
        lines[-1] |= {"license": "CC0-1.0", "split": "train"}
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = dataclasses.replace(
        TINY.data,
        source=SourceConfig(manifests=(str(manifest),)),
        batches=BatchConfig(token_budget=50, buckets_s=(0.5, 1.0), row_multiple=2),
    )
    optim = dataclasses.replace(TINY.optim, accumulate=2)
    return dataclasses.replace(TINY, data=data, optim=optim, batch=0, steps=12, log_every=1)


@pytest.fixture(autouse=True)
def cache_root(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SAM_AUDIO_CACHE", str(tmp_path_factory.getbasetemp() / "waves"))


def batches_of(config: TrainConfig):
    return separation_batches(config.data, config.codec.sample_rate, config.codec.hop, config.batch)


@pytest.fixture(scope="module")
def training(config):
    """State, step and frozen weights, which all runs of this file share."""
    codec = filled(lambda: Codec(TINY.codec, rngs=Rngs(0)))
    start = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    return make_separator_training(config, codec, mesh(), start)


def mesh():
    return parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])


def train(config: TrainConfig, workdir: pathlib.Path, training: tuple):
    start, step, weights = training
    batches = batches_of(config)
    try:
        return loop.train_and_evaluate(
            config,
            workdir=workdir,
            state=jax.tree.map(jnp.copy, start),
            step=step,
            batches=batches,
            mesh=mesh(),
            frames_per_step=lambda: batches.frames,
            frozen=weights,
        )
    finally:
        batches.close()


def test_a_run_under_a_budget_goes_on_where_it_was_and_counts_its_frames(
    config, training, same, tmp_path, capsys
):
    """Takes long because a training step is compiled for each of two lengths, in three runs."""
    whole = train(config, tmp_path / "whole", training)
    assert capsys.readouterr().err.count("compiling") >= 2
    for steps in (5, 12):
        parts = train(dataclasses.replace(config, steps=steps), tmp_path / "parts", training)
    assert int(parts.step) == 12
    assert same((whole.params, whole.ema), (parts.params, parts.ema))
    lines, again = (untimed(Workdir(tmp_path / name).read_metrics()) for name in ("whole", "parts"))
    assert lines == again
    batches = batches_of(config)
    frames_drawn = [next(batches)["valid"].size for _ in range(12)]
    batches.close()
    assert [line["frames"] for line in lines] == frames_drawn
    assert set(frames_drawn) == {48, 50}
    assert all(np.isfinite(line["loss"]) and not line["skipped"] for line in lines)


def test_speed_is_measured_in_frames_without_compilations(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 100.0, 102.0, 103.0])
    monkeypatch.setattr("sam_audio_jax.train.step_timer.time.monotonic", lambda: next(clock))
    frames = iter([48, 48, 50, 50, 48])
    timer = StepTimer(lambda: next(frames))
    texts = []
    for length in (12, 12, 25, 25, 12):
        texts.append(timer.is_new({"x": np.zeros((2, length))}))
        timer.count()
        timer.advance()
        texts.append(timer.progress_text(60.0))
    assert texts == [
        True,
        "compiling",
        False,
        "48 frames/s, 1:00 left",
        True,
        "compiling",
        False,
        "25 frames/s, 1:00 left",
        False,
        "33 frames/s, 1:00 left",
    ]


def velocity_error(model: PromptedSeparator, frames: int) -> jax.Array:
    """Loss of a fixed example of 12, and one of 9 frames, padded to `frames`."""
    rng = np.random.default_rng(0)
    sizes, fill = (12, 9), ((0, 0), (0, frames - 12), (0, 0))
    valid = np.arange(frames) < np.array(sizes)[:, None]
    drawn = {
        name: np.pad(rng.normal(size=(2, 12, width)).astype(np.float32), fill) * valid[..., None]
        for name, width in (("mixture", 4), ("noisy", 8), ("velocity", 8))
    }
    conditions = Conditions(
        mixture=jnp.asarray(drawn["mixture"]),
        text=jnp.asarray(rng.normal(size=(2, 3, 8)).astype(np.float32)),
        text_mask=jnp.ones((2, 3), bool),
        video=jnp.zeros((2, frames, 4)),
        anchors=jnp.where(valid, 1, 3),
        valid=jnp.asarray(valid),
    )
    velocity = model.separator(jnp.asarray(drawn["noisy"]), jnp.array([0.3, 0.7]), conditions)
    return masked_mse(velocity, jnp.asarray(drawn["velocity"]), jnp.asarray(valid))


def test_padding_changes_the_loss_by_the_norm_of_the_patcher_alone(monkeypatch):
    """The reference's ItemNorm counts padded frames (docs/model.md, "Patcher"): ours must too."""
    model = filled(lambda: PromptedSeparator(TINY.text, TINY.separator, rngs=Rngs(0)))
    near, far = (nnx.jit(velocity_error, static_argnums=1)(model, n) for n in (12, 25))
    assert 1e-5 < abs(near - far) / near < 0.2
    plain, graded_losses = Patcher.__call__, []
    for frames in (12, 25):
        valid = jnp.arange(frames) < jnp.array([12, 9])[:, None]
        monkeypatch.setattr(Patcher, "__call__", lambda self, x, v=valid: plain(self, x, v))
        graded = nnx.jit(nnx.value_and_grad(velocity_error), static_argnums=1)
        graded_losses.append(graded(model, frames))
    (short, short_grads), (long, long_grads) = graded_losses
    np.testing.assert_allclose(short, long, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), short_grads, long_grads)


def test_a_budget_replaces_the_batch():
    data = dataclasses.replace(
        TINY.data, batches=BatchConfig(token_budget=50, buckets_s=(0.5, 1.0), row_multiple=6)
    )
    with pytest.raises(UserError, match=r"batch=8 and data\.batches\.token_budget=50 both say"):
        dataclasses.replace(TINY, data=data)
    with pytest.raises(UserError, match=r"^batch=0 must be 1 or more"):
        dataclasses.replace(TINY, batch=0)
    optim = dataclasses.replace(TINY.optim, accumulate=4)
    with pytest.raises(
        UserError, match=r"data\.batches\.row_multiple=6 must be a multiple of optim\.acc"
    ):
        dataclasses.replace(TINY, batch=0, data=data, optim=optim)
    assert dataclasses.replace(TINY, batch=0, data=data).row_multiple[1] == 6
