"""Which sounds a model has learned by name, and whether a prompt is near one of them.

A small model that is asked for a sound which its training did not have returns another one. Where
its text encoder is a table of word vectors, in which words of one meaning are near each other, a
prompt that is far from every caption of the training is known before anything is separated. A model
folder holds the captions as `known` in `sam_audio_jax.json`: `{"texts": [...], "least_cosine":
0.5}`; `tools/known_sounds.py` writes them and says how the limit was chosen. A fine-tuning adds the
texts of its recordings, and an adapter brings its own.
"""

import dataclasses
from typing import Annotated

import numpy as np

from sam_audio_jax.bounds import Checked, Range
from sam_audio_jax.encoders.t5 import T5Encoder
from sam_audio_jax.encoders.text_means import TextMeans, unit
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.collate import Tokenize


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownConfig(Checked, where="known"):
    """The captions that a model was trained with, and how near a prompt must be to one of them."""

    texts: tuple[str, ...]
    least_cosine: Annotated[float, Range(-1, 1)] = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not self.texts:
            raise UserError("known.texts is empty: name a caption, or leave known out")


class KnownSounds:
    """The mean word vectors of a model's captions, on the host.

    Raises `UserError` for a text encoder with layers, whose states are no word vectors.
    """

    def __init__(self, config: KnownConfig, encoder: T5Encoder, tokenizer: Tokenize):
        self.config, self._means = config, TextMeans(encoder, tokenizer)
        self._vectors = unit(self._means(config.texts))

    def nearest(self, text: str) -> tuple[str, float]:
        """The caption nearest to a text, and the cosine of the two."""
        cosines = self._vectors @ unit(self._means([text]))[0]
        best = int(np.argmax(cosines))
        return self.config.texts[best], float(cosines[best])

    def note(self, text: str) -> str | None:
        """What to say of a prompt that is near no caption; None for one that is."""
        caption, cosine = self.nearest(text)
        if cosine >= self.config.least_cosine:
            return None
        return (
            f"its text {text!r} is no sound that the model has learned (the nearest is "
            f"{caption!r}): mark the sound with a span"
        )
