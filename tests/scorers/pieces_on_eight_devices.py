"""Run by test_pieces.py with 8 CPU devices: scores of pieces are the same on a mesh.

Not a test file: the number of devices is fixed when JAX starts.
"""

import jax
import numpy as np

from sam_audio_jax import parallel
from sam_audio_jax.convert.imagebind import imagebind_from_reference
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.scorers.aesthetics import Aesthetics, AestheticsScorer
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.scorer import PromptView
from tests import tiny
from tests.scorers.test_aesthetics import CONFIG
from tests.scorers.tiny_imagebind import TINY, random_state

RATE = 2_000


def video(times):
    for time in times:
        yield np.full((1, 12, 10, 3), int(20 + 200 * time), np.uint8)


def main() -> None:
    devices = jax.devices()
    assert len(devices) == 8
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((3, 2, 700)).astype(np.float32)
    lengths, prompts = np.array([100, 700, 350]), [PromptView(video=video)] * 3
    aesthetics = tiny.filled(lambda: Aesthetics(CONFIG, rngs=Rngs(0)))
    imagebind = imagebind_from_reference(random_state(), TINY)
    scores = []
    for mesh in (None, parallel.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), devices)):
        both: dict[str, np.ndarray] = {}
        for scorer in (AestheticsScorer(aesthetics, mesh), ImageBindScorer(imagebind, mesh)):
            both |= scorer.score(candidates[:, 0], candidates, lengths, RATE, prompts)
        scores.append(both)
    for axis, alone in scores[0].items():
        assert np.ptp(alone) > 1e-3
        np.testing.assert_allclose(scores[1][axis], alone, atol=2e-5, err_msg=axis)


if __name__ == "__main__":
    main()
