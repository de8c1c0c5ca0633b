"""The PyTorch side of the bench computes what ours does, at small sizes.

Needs the extra `[bench]`.
"""

import dataclasses

import numpy as np
import pytest

from sam_audio_jax.bench import scorer_parts
from sam_audio_jax.bench.parts import Forward
from sam_audio_jax.bench.transformer import forward_inputs
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.model import Separator, SeparatorConfig
from tests.tiny import JUDGE

pytest.importorskip("torch")
from sam_audio_jax.bench import torch_reference, torch_scorers

DIT = DitConfig(depth=2, width=64, heads=2, mlp=96, dropout=0.0, dtype="float32")
CODEC = CodecConfig(
    encoder_dim=4,
    encoder_rates=(3, 4),
    latent_dim=8,
    decoder_dim=16,
    decoder_rates=(4, 3),
    codebook_dim=4,
    watermark_rates=(),
)


def small_separator() -> Separator:
    return Separator(SeparatorConfig(dit=DIT), rngs=Rngs(0))


def small_codec() -> Codec:
    return Codec(dataclasses.replace(CODEC, mean=0.5, std=2.0), rngs=Rngs(0))


WAVE = np.random.default_rng(0).standard_normal((2, 144), np.float32)
LATENTS = np.random.default_rng(1).standard_normal((2, 12, 4), np.float32)


@pytest.mark.parametrize(
    "forward",
    [
        Forward(
            make=small_separator,
            program=Separator.__call__,
            inputs=forward_inputs,
            torch="velocity",
        ),
        Forward(make=small_codec, program=Codec.encode, inputs=lambda: (WAVE,), torch="encode"),
        Forward(make=small_codec, program=Codec.decode, inputs=lambda: (LATENTS,), torch="decode"),
    ],
    ids=lambda forward: forward.torch,
)
def test_both_sides_agree(forward):
    run, arguments = forward()
    ours, theirs = np.asarray(run(*arguments)), torch_reference.call(forward)().numpy()
    assert np.std(ours) > 1e-3
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.abs(ours).max())


@pytest.mark.long
def test_the_judge_agrees_with_peav_and_modernbert_of_transformers():
    text = dataclasses.replace(JUDGE.text, vocab_size=20_000)
    forward = scorer_parts.judge(dataclasses.replace(JUDGE, text=text), seconds=2.0)
    run, (program, *arrays) = forward()
    ours = np.asarray(run(program, *arrays))
    theirs = torch_scorers.call(forward)().numpy()
    assert np.abs(theirs).max() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
