"""Several candidates of one item: a scorer ranks their targets, the best one is kept.

Upstream: docs/scoring.md, "Candidates". The ranker of span prompts
never runs in the release; here it scores every candidate by itself.
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import PromptView
from sam_audio_jax.scorers.activity import METRICS, ActivityConfig, span_score


@runtime_checkable
class Scorer(Protocol):
    """Gives a number to each candidate of an item: the larger, the better it fits the prompts."""

    @property
    def needs(self) -> Literal["text", "spans", "video"]:
        """The kind of prompt without which it cannot score."""
        ...

    def score(
        self,
        targets: Float[np.ndarray, "candidates samples"],
        mixture: Float[np.ndarray, " mixture_samples"],
        sample_rate: int,
        prompts: PromptView,
    ) -> Float[np.ndarray, " candidates"]:
        """Scores of one item's targets, all at `sample_rate`."""
        ...


def check(scorer: Scorer, prompts: PromptView, name: str, *, predicted: bool = False) -> None:
    """Raises `UserError` for an item without the prompt that the scorer needs.

    With `predicted` the item will get predicted spans.
    """
    has = {
        "text": bool(prompts.text),
        "spans": predicted or bool(prompts.sounding),
        "video": prompts.video is not None,
    }
    if not has[scorer.needs]:
        wanted = {"spans": "'+' spans", "text": "a text", "video": "a masked video"}[scorer.needs]
        raise UserError(
            f"candidates of {name} cannot be ranked: {type(scorer).__name__} needs {wanted}"
        )


def rank(
    scorer: Scorer,
    targets: Float[np.ndarray, "candidates samples"],
    mixture: Float[np.ndarray, " mixture_samples"],
    sample_rate: int,
    prompts: PromptView,
) -> tuple[int, Float[np.ndarray, " candidates"]]:
    """The best candidate, the first of equals, and all scores."""
    scores = np.asarray(scorer.score(targets, mixture, sample_rate, prompts), np.float32)
    if scores.shape != targets.shape[:1] or not np.isfinite(scores).all():
        raise ValueError(f"{type(scorer).__name__} made {scores} of {len(targets)} candidates")
    return int(np.argmax(scores)), scores


class SpanIoU:
    """How well the target sounds when the "+" spans say, and only then."""

    needs: Literal["text", "spans", "video"] = "spans"

    def __init__(self, metric: str = "iou", config: ActivityConfig | None = None):
        if metric not in METRICS:
            raise UserError(f"metric={metric!r} is unknown; allowed: {', '.join(METRICS)}")
        self.metric, self.config = metric, config

    def score(
        self,
        targets: Float[np.ndarray, "candidates samples"],
        mixture: Float[np.ndarray, " mixture_samples"],
        sample_rate: int,
        prompts: PromptView,
    ) -> Float[np.ndarray, " candidates"]:
        """Agreement of each target's sound activity with the spans; 0 where there are none."""
        return np.array(
            [
                span_score(
                    target, sample_rate, prompts.spans, metric=self.metric, config=self.config
                )
                for target in targets
            ]
        )
