"""Several candidates of one item: a scorer ranks their targets, the best one is kept.

Upstream: docs/scoring.md, "Candidates". The ranker of span prompts
never runs in the release; here it scores every candidate by itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.scorer import WANTED, PromptView, Scorer, best


class Choice(NamedTuple):
    """The candidate of an item that is kept."""

    index: int = 0
    scores: Float[np.ndarray, " candidates"] | None = None  # of all; None: there is only one


def check(scorer: Scorer, prompts: PromptView, name: str, *, predicted: bool = False) -> None:
    """Raises `UserError` for an item without the prompt that the scorer needs.

    With `predicted` the item will get predicted spans.
    """
    if not (prompts.has(scorer.needs) or (predicted and scorer.needs == "spans")):
        raise UserError(
            f"candidates of {name} cannot be ranked: {type(scorer).__name__} needs "
            f"{WANTED[scorer.needs]}"
        )


def rank(
    scorer: Scorer,
    targets: Sequence[Float[np.ndarray, "candidates _"]],
    mixtures: Sequence[Float[np.ndarray, " _"]],
    sample_rate: int,
    prompts: Sequence[PromptView],
) -> list[Choice]:
    """For each item the best candidate, the first of equals, and the scores of all.

    Items of one call are scored as one batch; each may have its own length.
    """
    lengths = np.array([wave.shape[-1] for wave in targets])
    longest = int(lengths.max())
    candidates = np.stack([padded(waves, longest) for waves in targets])
    recordings = np.stack(
        [padded(wave[:n], longest) for wave, n in zip(mixtures, lengths, strict=True)]
    )
    named = scorer.score(recordings, candidates, lengths, sample_rate, prompts)
    scores = np.asarray(named[scorer.axes[0]], np.float32)
    if scores.shape != candidates.shape[:2] or not np.isfinite(scores).all():
        raise ValueError(
            f"{type(scorer).__name__} made {scores} of {candidates.shape[:2]} candidates"
        )
    return [Choice(int(index), row) for index, row in zip(best(scores), scores, strict=True)]


def padded(wave: Float[np.ndarray, "... samples"], length: int) -> Float[np.ndarray, "... padded"]:
    """The wave with zeros behind its last sample, up to `length` samples."""
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, length - wave.shape[-1])])
