"""Several scorers as one: the weighted sum of their raw scores (docs/scoring.md, "Candidates")."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.bounds import Finite, check
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView, Scorer

TOTAL = "ensemble"


def weighted_sum(
    scores: Mapping[str, Float[np.ndarray, "batch candidates"]], weights: Mapping[str, float]
) -> Float[np.ndarray, "batch candidates"]:
    """`sum of weight * score` over names, in the order of the weights; nothing is normalised.

    Raises UserError for names that are not the same in both.
    """
    if set(scores) != set(weights):
        raise UserError(
            f"weights of an ensemble are for {', '.join(sorted(weights)) or 'nothing'}, its "
            f"scores are {', '.join(sorted(scores)) or 'none'}"
        )
    terms = [np.float32(weight) * scores[name] for name, weight in weights.items()]
    return np.stack(terms).sum(axis=0)


class Ensemble:
    """Ranks by the weighted sum of the first scores of its members, which it also returns."""

    def __init__(self, members: Mapping[str, tuple[Scorer, float]]):
        """`members`: name -> scorer and weight.

        Raises UserError for none, for a weight that is no number, for a name that is that of the
        sum, and for members that need different kinds of prompts.
        """
        if not members or TOTAL in members:
            raise UserError(
                f"an ensemble needs at least one scorer, and none may be called {TOTAL!r}: "
                f"{', '.join(members) or 'there is none'}"
            )
        for name, (_, weight) in members.items():
            check(Finite, weight, f"weight of {name}")
        needs: set[Needs] = {scorer.needs for scorer, _ in members.values()}
        needs.discard("nothing")
        if len(needs) > 1:
            raise UserError(
                "an ensemble ranks by one kind of prompt; its scorers need "
                f"{', '.join(sorted(needs))}"
            )
        self.members = dict(members)
        self.needs: Needs = needs.pop() if needs else "nothing"

    @property
    def axes(self) -> tuple[str, ...]:
        """The sum, then the members by their names."""
        return (TOTAL, *self.members)

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """The sum and the first score of each member."""
        scores = {}
        for name, (scorer, _) in self.members.items():
            found = scorer.score(mixtures, candidates, lengths, sample_rate, prompts)
            scores[name] = found[scorer.axes[0]]
        weights = {name: weight for name, (_, weight) in self.members.items()}
        return {TOTAL: weighted_sum(scores, weights), **scores}
