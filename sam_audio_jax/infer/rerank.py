"""Several candidates of one item: a scorer ranks their targets, the best one is kept.

Upstream: docs/scoring.md, "Candidates". The ranker of span prompts
never runs in the release; here it scores every candidate by itself.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sam_audio_jax.audio import Level
from sam_audio_jax.convert.rankers import ModelRankers, load_scorer
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.scorer import (
    WANTED,
    PromptView,
    Scorer,
    SpanIoU,
    best,
    score_recordings,
)


class Choice(NamedTuple):
    """The candidate of an item that is kept."""

    index: int = 0
    scores: Float[np.ndarray, " candidates"] | None = None  # of all; None: there is only one


@dataclasses.dataclass(frozen=True)
class Rankers:
    """Which scorer ranks the candidates of an item: the caller's, else by the item's prompts."""

    model: ModelRankers = dataclasses.field(default_factory=ModelRankers)
    named: tuple[str, ...] = ()  # kinds of the model's that the caller named

    @functools.cached_property
    def spans(self) -> Scorer:
        """What ranks by "+" spans: as the model's config says, else as published."""
        own = (self.model.text, self.model.visual)
        return next((one for one in own if one is not None and one.needs == "spans"), SpanIoU())

    def choose(
        self,
        prompts: PromptView,
        name: str,
        scorer: Scorer | None = None,
        *,
        predicts_spans: bool = False,
    ) -> Scorer:
        """The scorer of an item with these prompts, ready to score.

        As published: spans of the caller by their agreement with the sound, else a video by the
        model's visual ranker, else a text by its text ranker. A model without one falls back on
        spans that it will predict. Raises `UserError` where nothing can rank the candidates.
        """
        if scorer is not None:
            _check(scorer, prompts, name, predicts_spans)
            return scorer
        chosen = next(
            (
                ranker
                for ranker in (self.spans, self.model.visual, self.model.text)
                if ranker is not None and prompts.has(ranker.needs)
            ),
            None,
        )
        if chosen is None and predicts_spans and prompts.text:
            chosen = self.spans
        if chosen is None:
            raise UserError(f"candidates of {name} cannot be ranked: {_lacking(prompts)}")
        try:
            load_scorer(chosen)
        except UserError as error:
            raise UserError(f"candidates of {name} cannot be ranked: {error}") from error
        return chosen

    def note(self, chosen: Scorer | None) -> str | None:
        """What to say of an item that `chosen` ranks: named rankers may be without effect."""
        if chosen is not self.spans or not self.named:
            return None
        return f"its '+' spans rank its candidates, not the named {', '.join(self.named)}"


def _lacking(prompts: PromptView) -> str:
    """What to give, so that candidates can be ranked."""
    if prompts.text:
        return (
            "this model names no text ranker: give '+' spans, or one as --ranker judge=NAME "
            "(in Python from_pretrained(rankers={'judge': NAME}) or scorer=)"
        )
    if prompts.video is not None:
        return (
            "this model names no visual ranker: give '+' spans, or one as --ranker imagebind=FILE "
            "(in Python from_pretrained(rankers={'imagebind': FILE}) or scorer=)"
        )
    return "give a text, '+' spans or a video that says which is the best"


def _check(scorer: Scorer, prompts: PromptView, name: str, predicts_spans: bool) -> None:
    """Raises `UserError` for an item without the prompt that the caller's scorer needs."""
    if not (prompts.has(scorer.needs) or (predicts_spans and scorer.needs == "spans")):
        raise UserError(
            f"candidates of {name} cannot be ranked: {type(scorer).__name__} needs "
            f"{WANTED[scorer.needs]}"
        )


def rank_items(
    scorers: Sequence[Scorer | None],
    targets: Sequence[Float[np.ndarray, "candidates _"]],
    levels: Sequence[Level],
    mixtures: Sequence[Float[np.ndarray, " _"]],
    sample_rate: int,
    prompts: Sequence[PromptView],
) -> list[Choice]:
    """`rank` of items, each by its own scorer; those with the same one are one batch.

    Targets are as the networks gave them, and are ranked at the level of their recordings, the
    mixtures, as judges are trained and measured; a scorer for which no level counts takes them as
    they are. Of an item without a scorer the first candidate is kept.
    """
    choices = [Choice()] * len(scorers)
    for scorer in {id(scorer): scorer for scorer in scorers if scorer is not None}.values():
        rows = [row for row, own in enumerate(scorers) if own is scorer]
        # It rounds to 16 bits, which would leave little of a faint recording.
        stay = isinstance(scorer, SpanIoU) and scorer.at_any_level
        ranked = rank(
            scorer,
            [targets[row] if stay else levels[row].undo(targets[row]) for row in rows],
            [mixtures[row] for row in rows],
            sample_rate,
            [prompts[row] for row in rows],
        )
        for row, choice in zip(rows, ranked, strict=True):
            choices[row] = choice
    return choices


def rank(
    scorer: Scorer,
    targets: Sequence[Float[np.ndarray, "candidates _"]],
    mixtures: Sequence[Float[np.ndarray, " _"]],
    sample_rate: int,
    prompts: Sequence[PromptView],
) -> list[Choice]:
    """For each item the best candidate, the first of equals, and the scores of all.

    Items of one call are scored as one batch; each may have its own length. Raises `UserError` for
    scores that are no numbers.
    """
    named = score_recordings(scorer, mixtures, targets, sample_rate, prompts)
    scores = np.asarray(named[scorer.axes[0]], np.float32)
    shape = len(targets), len(targets[0])
    if scores.shape != shape:
        raise ValueError(f"{type(scorer).__name__} made {scores} of {shape} candidates")
    if not np.isfinite(scores).all():
        raise UserError(
            f"candidates cannot be ranked: the score {scorer.axes[0]!r} of some is no number; a "
            "recording is far too loud for the ranker, or its weights are damaged"
        )
    return [Choice(int(index), row) for index, row in zip(best(scores), scores, strict=True)]
