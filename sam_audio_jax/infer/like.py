"""Prompts by example: a recording that sounds like what is to be separated.

The audio tower makes one vector of it, which is one token of the text's memory
(docs/prompt_encoders.md, "Audio tower").
"""

import functools
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sam_audio_jax import audio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.convert.audio_tower import StoredAudioTower
from sam_audio_jax.encoders.audio_embedder import AudioEmbedder
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.encoders.text_means import TextMeans
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.collate import Tokenize
from sam_audio_jax.scorers.audio_text import AudioTextScorer


class LikeVectors:
    """Turns examples into vectors; the tower is loaded for the first of them."""

    def __init__(
        self,
        tower: StoredAudioTower | None,
        codec: Codec,
        text_encoder: T5Encoder,
        tokenizer: Tokenize,
        mesh: Mesh | None = None,
    ):
        self.tower, self.codec, self.mesh = tower, codec, mesh
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    def require(self) -> StoredAudioTower:
        """The tower, which is not loaded yet. Raises `UserError` if there is none."""
        if self.tower is None:
            raise UserError("this model has no audio tower: it cannot be prompted by an example")
        return self.tower

    @functools.cached_property
    def scorer(self) -> AudioTextScorer:
        """The tower among the model's word vectors.

        Raises `UserError` if there is none, or one that was trained between others.
        """
        stored = self.require()
        texts = TextMeans(self.text_encoder, self.tokenizer)
        stored.space.check(self.codec, texts, "the audio tower")
        embedder = AudioEmbedder(
            self.codec, stored.read(), frames=stored.space.frames, mesh=self.mesh
        )
        return AudioTextScorer(embedder, texts)

    def __call__(
        self, source: Any, sample_rate: int | None, name: str
    ) -> tuple[Float[np.ndarray, " text_width"], tuple[str, ...]]:
        """The vector of an example, a path or an array at `sample_rate`, and notes on its file.

        Raises `UserError` if the model has no tower, or for a recording that cannot be read or is
        silent; `name` is what the error calls it.
        """
        self.require()
        recording = inputs.read(source, sample_rate, name)
        mono, _, recording = inputs.to_mono(recording, name)
        embedder = self.scorer.embedder
        wave = audio.resample(mono, recording.sample_rate, self.codec.config.sample_rate)
        (vector,) = embedder.as_words(embedder([wave]))
        return vector, recording.notes
