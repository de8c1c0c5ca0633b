"""Whole runs of `separate.safetensors`: solver trajectory from the stored features, then waves."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.separator import flow
from sam_audio_jax.separator.prompts import Conditions, batch_anchors, valid_frames

pytestmark = pytest.mark.golden
PROMISED = 2e-4  # of latents; measured: 2e-6
WAVES = 1e-3

# The clips of each run, of those whose texts, anchors and sizes `fixture.json` lists, and which of
# these prompts it gets (the README of the fixtures).
CLIPS = {"single": [0], "item2_alone": [2]}
WITHOUT_TEXT = ("none", "item2_alone")
WITH_ANCHORS = ("span", "all")
RUNS = ("text", "span", "video", "all", "none", "single", "item2_alone")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: the reference's stored arrays, and our conditions from them."""

    stored: dict[str, jax.Array]
    clips: list[int]
    noise: jax.Array
    conditions: Conditions
    middle: jax.Array  # ours: the state at the first midpoint
    states: jax.Array  # ours: the state after every step


@pytest.fixture(scope="module")
def io(golden):
    return golden.numbers("separate")


@pytest.fixture(scope="module")
def facts(golden):
    return json.loads((golden.folder / "fixture.json").read_text())


@pytest.fixture(scope="module", params=RUNS)
def run(request, golden, io, facts) -> Run:
    name = request.param
    stored = {n.removeprefix(f"{name}/"): w for n, w in io.items() if n.startswith(f"{name}/")}
    if not stored:
        pytest.skip("not in these fixtures")
    clips = CLIPS.get(name, list(range(len(facts["separate"]["sizes"]))))
    _, frames, channels = stored["audio_features"].shape
    texts = ["" if name in WITHOUT_TEXT else facts["separate"]["texts"][clip] for clip in clips]
    text, mask = encoded(golden, facts, texts)
    conditions = Conditions(
        mixture=stored["audio_features"][..., : channels // 2],
        text=text,
        text_mask=mask,
        video=stored["video_features"].transpose(0, 2, 1),
        anchors=jnp.take_along_axis(stored["anchor_ids"], stored["anchor_alignment"], axis=1),
        valid=stored["audio_pad_mask"].astype(bool),
    )
    noise = io["noise"][np.array(clips), :frames]
    middle, states = trajectory(golden.separator, conditions, noise, steps=steps_of(facts))
    return Run(stored, clips, noise, conditions, middle, states)


def encoded(golden, facts, texts):
    rows = [facts["token_ids"][text] for text in texts]
    longest = max(map(len, rows))
    ids = jnp.array([row + [0] * (longest - len(row)) for row in rows], jnp.int32)
    mask = jnp.array([[i < len(row) for i in range(longest)] for row in rows])
    return jax.jit(lambda *inputs: golden.text_encoder(*inputs))(ids, mask), mask


def steps_of(facts):
    return len(facts["separate"]["call_times"]) // 2


@functools.partial(jax.jit, static_argnames=("separator", "steps"))
def trajectory(separator, conditions, noise, *, steps):
    """First midpoint, then the states after every step: `[batch, ...]`, `[steps, batch, ...]`."""
    prepared = separator.prepare(conditions)

    def velocity(x, time):
        return separator.velocity(x, time, prepared)

    def body(x, number):
        x, _ = flow.step(velocity, x, number, flow.SamplerConfig(steps=steps))
        return x, x

    middle = noise + velocity(noise, jnp.zeros(len(noise))) / (2 * steps)
    return middle, jax.lax.scan(body, noise, jnp.arange(steps, dtype=jnp.float32))[1]


def near(got, want, atol=PROMISED):
    np.testing.assert_allclose(got, want, atol=atol, rtol=0)


def test_solver_evaluates_at_the_references_times(facts):
    times = []

    def velocity(x, time):
        times.append(float(time[0]))
        return x

    with jax.disable_jit():
        flow.sample(velocity, jnp.zeros((1, 1, 1)), flow.SamplerConfig(steps=steps_of(facts)))
    want = facts["separate"]["call_times"]
    np.testing.assert_allclose(times, want, rtol=0, atol=2e-7)  # a digit of float32


def test_prompts_become_the_references_arrays(run, facts, request):
    separate, name = facts["separate"], request.node.callspec.params["run"]
    sizes = [separate["sizes"][clip] for clip in run.clips]
    anchors = [[tuple(span) for span in separate["anchors"][clip]] for clip in run.clips]
    spans = anchors if name in WITH_ANCHORS else None
    grid = {"sample_rate": separate["sample_rate"], "hop": separate["hop"]}
    anchors = batch_anchors(spans or [[] for _ in sizes], sizes, **grid)
    np.testing.assert_array_equal(anchors, run.conditions.anchors)
    np.testing.assert_array_equal(valid_frames(sizes), run.stored["audio_pad_mask"])
    if "text_features" in run.stored:
        near(run.conditions.text, run.stored["text_features"])
        np.testing.assert_array_equal(run.conditions.text_mask, run.stored["text_mask"])


def test_every_state_of_the_trajectory(run):
    near(run.middle, run.stored["x_at_call2"])
    near(run.states[0], run.stored["x_at_call3"])
    near(run.states[-1], run.stored["ode_end"])
    if "ode_states" in run.stored:
        every = jnp.concatenate([run.noise[None], run.states])
        stride = len(run.states) // (len(run.stored["ode_states"]) - 1)
        near(every[::stride], run.stored["ode_states"])


def test_waves_after_the_codec(golden, run, facts):
    """From our own end state, with the reference's message and without any."""
    if "decoded" not in run.stored:
        pytest.skip("this run stores no waves")
    batch, frames, channels = run.states[-1].shape
    rows = run.states[-1].reshape(batch, frames, 2, channels // 2).transpose(0, 2, 1, 3)
    rows = rows.reshape(2 * batch, frames, channels // 2)
    message = run.stored["message"].astype(jnp.int32)
    decode = jax.jit(lambda z, m: golden.codec.decode(z, watermark=m))
    want = run.stored["decoded"]
    near(decode(rows, message).reshape(want.shape), want, WAVES)
    clean = run.stored["decoded_no_watermark"]
    near(decode(rows, None).reshape(clean.shape), clean, WAVES)
    for item, clip in enumerate(run.clips):
        samples = facts["separate"]["sizes"][clip] * facts["separate"]["hop"]
        near(want[item, 0, :samples], run.stored[f"target{item}"], 0)
        near(want[item, 1, :samples], run.stored[f"residual{item}"], 0)
