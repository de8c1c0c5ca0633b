"""How well a sound fits a text, by the audio tower and the word vectors of a model.

The scorer that a small model carries with it: no weights beside those of its folder. It re-ranks
candidates (`SAMAudio.separate(scorer=...)`), and filters pseudo-labels by the text against the
target and against the residual. See docs/scoring.md, "Audio tower".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int

from sam_audio_jax import audio
from sam_audio_jax.encoders.audio_embedder import AudioEmbedder
from sam_audio_jax.encoders.text_means import TextMeans, unit
from sam_audio_jax.scorers.pieces import each_candidate
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView


class AudioTextScorer:
    """The cosine of each candidate with the mean word vector of its text, -1 to 1.

    0 for a candidate that is silent, and for a text without a word that the vectors know.
    """

    needs: Needs = "text"
    axes: tuple[str, ...] = ("audio_text",)

    def __init__(self, embedder: AudioEmbedder, texts: TextMeans):
        """The tower must have been trained among the word vectors of `texts`."""
        self.embedder, self.texts = embedder, texts

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """Cosines of all candidates; the mixtures are not looked at."""
        waves = each_candidate(candidates, lengths)
        sounds = self.embed_waves(waves, sample_rate).reshape(*candidates.shape[:2], -1)
        texts = unit(self.texts([view.text for view in prompts]))
        return {self.axes[0]: np.einsum("bke,be->bk", sounds, texts)}

    def embed_waves(
        self, waves: Sequence[Float[np.ndarray, " _"]], sample_rate: int
    ) -> Float32[np.ndarray, "waves embedding"]:
        """One vector of length 1 for each wave at `sample_rate`, zeros for silence."""
        rate = self.embedder.codec.config.sample_rate
        return self.embedder([audio.resample(wave, sample_rate, rate) for wave in waves])
