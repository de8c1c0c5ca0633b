"""Run by test_judge_scorer.py with 8 CPU devices: a batch sharded over a mesh has the same scores.

Not a test file: the number of devices is fixed when JAX starts.
"""

import jax
import numpy as np

from sam_audio_jax import parallel
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.scorers.judge import AXES, Judge
from sam_audio_jax.scorers.judge_scorer import JudgeScorer, JudgeScoring
from sam_audio_jax.scorers.scorer import PromptView
from tests import tiny

LENGTHS = (90, 90, 90, 200)  # samples
SCORING = JudgeScoring(window_s=0.48, batch_s=2.0)


def main() -> None:
    devices = jax.devices()
    assert len(devices) == 8
    rng = np.random.default_rng(0)
    mixtures = rng.standard_normal((len(LENGTHS), max(LENGTHS))).astype(np.float32)
    candidates = rng.standard_normal((len(LENGTHS), 2, max(LENGTHS))).astype(np.float32)
    prompts = [PromptView(text=text) for text in ("dog", "rain", "a long text", "dog")]
    judge = tiny.filled(lambda: Judge(tiny.JUDGE, rngs=Rngs(0)))
    scores = []
    for mesh in (None, parallel.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), devices)):
        scorer = JudgeScorer(judge, tokenizer_for("byt5"), SCORING, mesh)
        rate = tiny.JUDGE.sample_rate
        scores.append(scorer.score(mixtures, candidates, np.array(LENGTHS), rate, prompts))
    for axis in AXES:
        assert np.ptp(scores[0][axis]) > 1e-3
        np.testing.assert_allclose(scores[1][axis], scores[0][axis], atol=1e-5)


if __name__ == "__main__":
    main()
