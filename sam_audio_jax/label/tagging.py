"""Captions for recordings that have none: the phrase of a vocabulary that CLAP finds nearest."""

import pathlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.errors import UserError, first_line
from sam_audio_jax.infer.inputs import check_text
from sam_audio_jax.scorers.clap_scorer import ClapScorer


@runtime_checkable
class Tagger(Protocol):
    """Gives captions to recordings."""

    @property
    def phrases(self) -> Sequence[str]:
        """All captions that it may give."""
        ...

    def caption(self, wave: Float[np.ndarray, " samples"], sample_rate: int) -> str:
        """The caption of a mono recording."""
        ...


class ClapTagger:
    """Chooses among phrases by the cosine of their embedding and the recording's."""

    def __init__(self, scorer: ClapScorer, phrases: Sequence[str]):
        self.scorer, self.phrases = scorer, tuple(phrases)
        self._vectors = scorer.embed_texts(self.phrases)

    def caption(self, wave: Float[np.ndarray, " samples"], sample_rate: int) -> str:
        """The phrase with the largest cosine, the first of equals."""
        (vector,) = self.scorer.embed_waves([wave], sample_rate)
        return self.phrases[int(np.argmax(self._vectors @ vector))]


def read_vocabulary(path: pathlib.Path) -> list[str]:
    """The different phrases of a text file, one a line, as models read them.

    Raises UserError for a file that cannot be read, is no UTF-8 or has no phrase.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"vocabulary {path} cannot be read: {first_line(error)}") from None
    phrases = [normalize(check_text(line, f"vocabulary {path}")) for line in lines]
    if not (phrases := list(dict.fromkeys(filter(None, phrases)))):
        raise UserError(f"vocabulary {path} has no phrase")
    return phrases
