"""What `sam-audio bench` measures: the transformer, the codec, whole separations."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from sam_audio_jax.bench.transformer import FRAMES, Call, forward_inputs, separator, train
from sam_audio_jax.bench.weights import random_network
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.model import Separator

CODEC_S = 4  # seconds of sound for the codec
STEMS_S = 10  # and for one stem or three
STEMS = ("speech", "music", "effects")
MANY_STEPS = {"method": "midpoint", "steps": 16}  # as published


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """A method of a full-size network, as inference calls it; PyTorch can run it, too."""

    make: Callable[[], nnx.Module]
    program: Callable[..., jax.Array]
    inputs: Callable[[], tuple[Any, ...]]
    torch: Literal["velocity", "encode", "decode"]  # the function in `torch_reference`

    def __call__(self) -> Call:
        """Returns the compiled program with random weights and its arguments."""
        return Compiled(random_network(self.make)), (self.program, *self.inputs())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table: a program and what one run of it handles."""

    title: str
    make: Callable[[], Call]
    amount: float | int  # of `unit` in one run
    unit: str


def codec() -> Codec:
    """Builds the full-size codec."""
    return Codec(CodecConfig(), rngs=Rngs(0))


def codec_input(program: Literal["encode", "decode"]) -> tuple[jax.Array]:
    """Returns noise of `CODEC_S` seconds, or as many random latents."""
    config = CodecConfig()
    samples = CODEC_S * config.sample_rate
    if program == "encode":
        return (jax.random.normal(jax.random.key(1), (1, samples)) / 10,)
    shape = (1, config.frames(samples), config.codebook_dim)
    return (jax.random.normal(jax.random.key(1), shape),)


def separation(minutes: int) -> Call:
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


def stems(*texts: str, **solver: Any) -> Call:
    """Returns the separation of 10 s of noise by the shipped model: joint stems of the texts.

    One text is separated as any call does, refined. `solver` is `method` and `steps` where they are
    not the model's own.
    """
    model = SAMAudio.from_pretrained("tiny")
    rate = model.sample_rate
    wave = np.random.default_rng(0).standard_normal(STEMS_S * rate, np.float32) / 10
    separate = functools.partial(model.separate, sample_rate=rate, refine="wiener", **solver)
    if len(texts) == 1:
        return lambda wave: separate(wave, texts[0]).target, (wave,)
    joint = functools.partial(separate, text=list(texts), joint=True)
    return lambda wave: [one.target for one in joint(wave).values()], (wave,)


def transformer(depth: int) -> Forward:
    """Returns one evaluation of the velocity with `depth` layers."""
    return Forward(
        make=lambda: separator(depth),
        program=Separator.__call__,
        inputs=forward_inputs,
        torch="velocity",
    )


PARTS = {
    "dit": Measurement(
        title="DiT forward, small, 12 layers, 10 s",
        make=transformer(12),
        amount=FRAMES,
        unit="frames",
    ),
    "dit-2": Measurement(
        title="DiT forward, small width, 2 layers",
        make=transformer(2),
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
        make=Forward(
            make=codec,
            program=Codec.encode,
            inputs=lambda: codec_input("encode"),
            torch="encode",
        ),
        amount=CODEC_S,
        unit="s",
    ),
    "decode": Measurement(
        title="codec decode, full size, 4 s",
        make=Forward(
            make=codec,
            program=Codec.decode,
            inputs=lambda: codec_input("decode"),
            torch="decode",
        ),
        amount=CODEC_S,
        unit="s",
    ),
    "stem": Measurement(
        title="separate 10 s by one text, tiny",
        make=lambda: stems("speech"),
        amount=STEMS_S,
        unit="s",
    ),
    "stems": Measurement(
        title="separate 10 s into three joint stems, tiny",
        make=lambda: stems(*STEMS),
        amount=STEMS_S,
        unit="s",
    ),
    "stem-16": Measurement(
        title="separate 10 s by one text, tiny, midpoint 16",
        make=lambda: stems("speech", **MANY_STEPS),
        amount=STEMS_S,
        unit="s",
    ),
    "stems-16": Measurement(
        title="separate 10 s into three joint stems, tiny, midpoint 16",
        make=lambda: stems(*STEMS, **MANY_STEPS),
        amount=STEMS_S,
        unit="s",
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
