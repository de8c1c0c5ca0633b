"""Run by test_long_audio.py with 8 CPU devices: windows spread over a mesh give the same stems.

Not a test file: the number of devices is fixed when JAX starts.
"""

import pathlib
import runpy

import jax
import numpy as np
from flax import nnx

from sam_audio_jax import SAMAudio, parallel
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.stream import stream
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.separator.model import PromptedSeparator

SIZES = runpy.run_path(str(pathlib.Path(__file__).parent / "conftest.py"))
SHORT = LongAudioConfig(window_s=2.0, overlap_s=0.5, one_shot_s=3.0, batch=1)
SAID = {"text": "dog", "spans": [("+", 0.5, 2.2)], "method": "euler", "steps": 2}


def main():
    devices = jax.devices()
    assert len(devices) == 8
    wave = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    made = []
    for mesh in (None, parallel.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), devices)):
        prompted = PromptedSeparator(SIZES["TEXT"], SIZES["SEPARATOR"], rngs=nnx.Rngs(0))
        out = prompted.separator.dit.out.kernel
        out[...] = 0.3 * jax.random.normal(jax.random.key(1), out[...].shape)
        codec = Codec(SIZES["CODEC"], rngs=nnx.Rngs(2))
        model = SAMAudio(codec, prompted, tokenizer_for("byt5"), long_audio=SHORT, mesh=mesh)
        whole = model.separate(wave, sample_rate=8_000, **SAID)
        pieces = stream(model, [wave], 8_000, window_s=2.0, overlap_s=0.5, **SAID)
        made.append((whole.target, np.concatenate([piece.target for piece in pieces])))
    for alone, spread in zip(*made, strict=True):
        assert np.std(alone) > 1e-3
        np.testing.assert_allclose(spread, alone, atol=1e-5)


if __name__ == "__main__":
    main()
