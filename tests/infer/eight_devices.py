"""Run by test_long_audio.py with 8 CPU devices: windows sharded over a mesh give the same stems.

Not a test file: the number of devices is fixed when JAX starts. Argument: a model folder.
"""

import sys
from unittest import mock

import jax
import numpy as np

from sam_audio_jax import SAMAudio, parallel
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.stream import stream
from sam_audio_jax.parallel import MeshConfig

RATE = 8_000
SHORT = LongAudioConfig(window_s=2.0, overlap_s=0.5, one_shot_s=3.0, batch=1)
OPTIONS = {"text": "dog", "spans": [("+", 0.5, 2.2)], "method": "euler", "steps": 2}


def main(folder: str) -> None:
    devices = jax.devices()
    assert len(devices) == 8
    wave = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    assert parallel.inference_mesh(None, lambda: 0).shape["data"] == 8
    assert parallel.inference_mesh(MeshConfig(data=2), lambda: 0).shape["fsdp"] == 4
    with mock.patch.object(parallel, "_memory", return_value=1_000):
        assert parallel.inference_mesh(None, lambda: 500).shape["data"] == 8
        assert parallel.inference_mesh(None, lambda: 501).shape["fsdp"] == 8
    targets = []
    for mesh in (None, parallel.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), devices)):
        model = SAMAudio.from_pretrained(folder, long_audio=SHORT, mesh=mesh)
        whole = model.separate(wave, sample_rate=RATE, **OPTIONS)
        pieces = stream(model, [wave], RATE, window_s=2.0, overlap_s=0.5, **OPTIONS)
        targets.append((whole.target, np.concatenate([piece.target for piece in pieces])))
    for single, sharded in zip(*targets, strict=True):
        assert np.std(single) > 1e-3
        np.testing.assert_allclose(sharded, single, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
