"""Multi-diffusion, whole and streamed, against loops that hold everything and skip nothing."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.long_audio import LongAudio, LongAudioConfig
from sam_audio_jax.infer.stream import stream
from sam_audio_jax.separator import flow
from sam_audio_jax.separator.prompts import Conditions, frame_anchors
from sam_audio_jax.separator.windows import lay_windows, window_starts

RATE, WINDOW, OVERLAP = 8_000, 50, 12
TEXT = "dog barking"
SPANS = (("+", 0.5, 2.2), ("-", 6.0, 6.5))
SHORT = LongAudioConfig(window_s=2.0, overlap_s=0.5, one_shot_s=3.0, batch=3)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A recording encoded at once, and the velocity of any window of it."""

    frames: int
    velocity: Callable  # (state of the window, time, its start) -> dx/dt
    decode: Callable  # state of all frames -> [stems, samples]


def whole(model, wave, features) -> Whole:
    codec, separator = model.pipeline.networks.codec, model.pipeline.networks.separator
    ids, mask = model.pipeline.tokenizer([TEXT])
    mixture, text = jax.jit(
        lambda *x: (codec.encode(x[0]), model.pipeline.networks.text_encoder(*x[1:]))
    )(wave[None], ids, mask)
    frames = mixture.shape[1]
    grid = {"sample_rate": codec.config.sample_rate, "hop": codec.config.hop}
    anchors = frame_anchors(SPANS, 0, frames, **grid)[None]

    @jax.jit
    def velocity(x, time, start):
        cut = [
            jax.lax.dynamic_slice_in_dim(jnp.asarray(array), start, WINDOW, axis=1)
            for array in (mixture, features[None], anchors)
        ]
        conditions = Conditions(
            mixture=cut[0],
            text=text,
            text_mask=jnp.asarray(mask),
            video=cut[1],
            anchors=cut[2],
        )
        return separator(x, time, conditions)

    def decode(latents):
        stems = np.moveaxis(latents.reshape(frames, 2, -1), 1, 0)
        return np.asarray(jax.jit(codec.decode)(jnp.asarray(stems)))

    return Whole(frames, velocity, decode)


def integrate(velocity, noise, method, steps) -> np.ndarray:
    x = jnp.asarray(noise[None])
    sampler = flow.SamplerConfig(method=method, steps=steps)
    for number in range(steps):
        x, _ = flow.step(velocity, x, jnp.float32(number), sampler)
    return np.asarray(x[0])


def test_long_audio_merges_at_every_call(model, noise_of):
    wave = noise_of(10.0, seed=1)  # the last window overlaps its neighbour by more than the others
    features = np.random.default_rng(2).standard_normal((250, 4)).astype(np.float32)
    noise = inputs.draw_noise(0, 250, 16)
    run = LongAudio(model.pipeline.compiled, model.pipeline.tokenizer, SHORT)
    prompts = {"text": TEXT, "spans": SPANS, "sampler": flow.SamplerConfig(steps=2)}
    stems = run(run.encode(wave), noise[None], features=features, **prompts)[0]

    plain = whole(model, wave, features)
    laid = lay_windows(plain.frames, WINDOW, OVERLAP)

    def merged(x, time):
        total = np.zeros(x.shape, np.float32)
        for start, weights in zip(laid.starts, laid.weights, strict=True):
            part = slice(start, start + WINDOW)
            total[:, part] += plain.velocity(x[:, part], time, start) * weights[:, None]
        return jnp.asarray(total)

    expected = plain.decode(integrate(merged, noise, "midpoint", 2))
    np.testing.assert_allclose(stems, expected, atol=2e-5)
    without = run(run.encode(wave), noise[None], features=0 * features, **prompts)[0]
    assert np.abs(stems - without).max() > 1e-4


@pytest.mark.parametrize("frames", [250, 240])  # an odd last window, and one on the grid
def test_a_streamed_window_follows_the_one_before(model, noise_of, frames):
    wave = noise_of(frames / 25)
    pieces = list(
        stream(
            *(model, np.split(wave, range(3_000, len(wave), 3_000)), RATE),
            **{"text": TEXT, "spans": SPANS, "seed": 4, "method": "heun", "steps": 2},
            **{"window_s": 2.0, "overlap_s": 0.5},
        )
    )
    stems = [
        np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("target", "residual")
    ]

    plain = whole(model, wave, np.zeros((frames, 4), np.float32))
    noise, solved = inputs.draw_noise(4, frames, 16), np.zeros((frames, 16), np.float32)
    past, end = [], 0  # the last window's velocities over all frames, by call; and its end
    for start in window_starts(frames, WINDOW, OVERLAP):
        part, slopes = slice(start, start + WINDOW), []
        weight = np.clip((end - np.arange(frames)) / (OVERLAP + 1), 0, 1)[part, None]

        def velocity(x, time, start=start, part=part, weight=weight, past=past, slopes=slopes):
            slope = np.asarray(plain.velocity(x, time, start))
            if past:
                slope = weight * past[len(slopes)][part] + (1 - weight) * slope
            slopes.append(np.zeros((frames, 16)))
            slopes[-1][part] = slope[0]
            return jnp.asarray(slope, jnp.float32)

        latents = integrate(velocity, noise[part], "heun", 2)
        final = max(0, end - OVERLAP - start)  # frames that the window before has settled
        np.testing.assert_allclose(latents[:final], solved[start : start + final], atol=1e-5)
        solved[part], past, end = latents, slopes, start + WINDOW
    np.testing.assert_allclose(stems, plain.decode(solved), atol=2e-5)
