"""The scores of labels by networks, whose weights are given: CLAP, aesthetics, ImageBind, judge."""

import types
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.scorer_files import LOADERS
from sam_audio_jax.label.members import SolvedMember
from sam_audio_jax.scorers.clap_scorer import ClapScorer
from sam_audio_jax.scorers.scorer import Scorer, SpanIoU, score_recordings

_Wave = Float[np.ndarray, " _"]


class LabelNetworks:
    """The scorers that are there, by the names of `infer/scorer_files.py`, and their scores."""

    def __init__(self, scorers: Mapping[str, Scorer] = types.MappingProxyType({})):
        """Raises UserError for a name that is not among those."""
        if unknown := set(scorers) - set(LOADERS):
            raise UserError(
                f"scorers {', '.join(sorted(unknown))} are unknown; allowed: {', '.join(LOADERS)}"
            )
        self.scorers = dict(scorers)

    @property
    def clap(self) -> ClapScorer:
        """CLAP. Raises UserError if it is not there."""
        scorer = self.scorers.get("clap")
        if not isinstance(scorer, ClapScorer):
            raise UserError("there is no CLAP: name its weights by --scorers clap=FILE")
        return scorer

    def scores(
        self, names: Sequence[str], solved: Sequence[SolvedMember], sample_rate: int
    ) -> dict[str, list[float]]:
        """The values of those of the named scores that networks, or spans, make."""
        found: dict[str, list[float]] = {}
        clap = [name for name in ("clap_target", "clap_residual") if name in names]
        if clap:
            waves = [(one.target, one.residual) for one in solved]
            values = _scores(self.scorers["clap"], "clap", waves, solved, sample_rate)
            both = {"clap_target": values[:, 0], "clap_residual": values[:, 1]}
            found |= {name: both[name].tolist() for name in clap}
        others = {
            "complexity": (self.scorers.get("aesthetics"), "PC"),
            "imagebind": (self.scorers.get("imagebind"), "imagebind"),
            "judge": (self.scorers.get("judge"), "overall"),
            "span_iou": (SpanIoU(), "span_iou"),
        }
        targets = [(one.target,) for one in solved]
        for name, (scorer, axis) in others.items():
            if name in names and scorer is not None:
                values = _scores(scorer, axis, targets, solved, sample_rate)
                found[name] = values[:, 0].tolist()
        return found


def _scores(
    scorer: Scorer,
    axis: str,
    waves: Sequence[Sequence[_Wave]],
    solved: Sequence[SolvedMember],
    sample_rate: int,
) -> Float[np.ndarray, "batch candidates"]:
    """One axis of a scorer for several waves of each recording."""
    values = score_recordings(
        scorer,
        [one.mixture for one in solved],
        [np.stack(several) for several in waves],
        sample_rate,
        [one.prompts for one in solved],
    )
    return np.asarray(values[axis], np.float64)
