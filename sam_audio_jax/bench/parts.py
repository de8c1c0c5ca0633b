"""What `sam-audio bench` measures: the transformer, the codec, whole separations."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from flax import nnx

from sam_audio_jax.bench.transformer import FRAMES, JittedCall, forward, random_weights, train
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.call import jitted

CODEC_S = 4  # seconds of sound for the codec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table: a program and what one run of it handles."""

    title: str
    make: Callable[[], JittedCall]
    amount: int  # of `unit` in one run
    unit: str
    reference_s: float | None = None  # wall time of the PyTorch implementation


def codec(method: Literal["encode", "decode"]) -> JittedCall:
    """Returns the full-size codec's `encode` of noise, or `decode` of random latents."""
    config = CodecConfig()
    graph, state = random_weights(lambda: Codec(config, rngs=nnx.Rngs(0)))
    samples = CODEC_S * config.sample_rate
    if method == "encode":
        x = jax.random.normal(jax.random.key(1), (1, samples)) / 10
    else:
        x = jax.random.normal(jax.random.key(1), (1, config.frames(samples), config.codebook_dim))
    return jitted(getattr(Codec, method)), (graph, state, (x,), ())


def separation(minutes: int) -> JittedCall:
    """Returns the separation of noise by the shipped model, from samples to samples.

    One Euler step evaluates the transformer once for each window; the rest is codec and windows.
    """
    model = SAMAudio.from_pretrained("tiny")
    rate = model.sample_rate
    wave = np.random.default_rng(0).standard_normal(minutes * 60 * rate, np.float32) / 10
    separate = functools.partial(
        model.separate, text="speech", sample_rate=rate, method="euler", steps=1
    )
    return lambda wave: separate(wave).target, (wave,)


PARTS = {
    "dit": Measurement(
        title="DiT forward, small, 12 layers, 10 s",
        make=lambda: forward(12),
        amount=FRAMES,
        unit="frames",
        reference_s=1.96,
    ),
    "dit-2": Measurement(
        title="DiT forward, small width, 2 layers",
        make=lambda: forward(2),
        amount=FRAMES,
        unit="frames",
    ),
    "train-2": Measurement(
        title="train step, small width, 2 layers",
        make=lambda: train(2),
        amount=FRAMES,
        unit="frames",
    ),
    "encode": Measurement(
        title="codec encode, full size, 4 s",
        make=lambda: codec("encode"),
        amount=CODEC_S,
        unit="s",
        reference_s=5.3,
    ),
    "decode": Measurement(
        title="codec decode, full size, 4 s",
        make=lambda: codec("decode"),
        amount=CODEC_S,
        unit="s",
        reference_s=9.6,
    ),
    "minute": Measurement(
        title="separate 1 minute, tiny, 1 Euler step",
        make=lambda: separation(1),
        amount=60,
        unit="s",
    ),
    "hour": Measurement(
        title="separate 60 minutes, tiny, 1 Euler step",
        make=lambda: separation(60),
        amount=3600,
        unit="s",
    ),
}
