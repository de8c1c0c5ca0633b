"""The scores of labels by networks, whose weights are given: CLAP, aesthetics, ImageBind, judge."""

import types
from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sam_audio_jax.convert.aesthetics import load_aesthetics
from sam_audio_jax.convert.clap import load_clap
from sam_audio_jax.convert.imagebind import load_imagebind
from sam_audio_jax.convert.judge import load_judge
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.label.members import SolvedMember
from sam_audio_jax.scorers.aesthetics import AestheticsScorer
from sam_audio_jax.scorers.clap_scorer import ClapScorer
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.judge_scorer import JudgeScorer
from sam_audio_jax.scorers.scorer import Scorer, SpanIoU
from sam_audio_jax.train.frozen import RANDOM

NETWORKS = ("clap", "aesthetics", "imagebind", "judge")
_Wave = Float[np.ndarray, " _"]


class LabelNetworks:
    """The scorers that are given, by the names of `NETWORKS`, and the scores that they make."""

    def __init__(self, scorers: Mapping[str, Scorer] = types.MappingProxyType({})):
        """Raises UserError for a name that is not among `NETWORKS`."""
        if unknown := set(scorers) - set(NETWORKS):
            raise UserError(
                f"scorers {', '.join(sorted(unknown))} are unknown; allowed: {', '.join(NETWORKS)}"
            )
        self.scorers = dict(scorers)

    @property
    def clap(self) -> ClapScorer:
        """CLAP. Raises UserError if it is not there."""
        scorer = self.scorers.get("clap")
        if not isinstance(scorer, ClapScorer):
            raise UserError("there is no CLAP: name its weights by --clap")
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
    lengths = np.array([len(one.mixture) for one in solved])
    mixtures = np.zeros((len(solved), lengths.max()), np.float32)
    candidates = np.zeros((len(solved), len(waves[0]), lengths.max()), np.float32)
    for row, (one, several) in enumerate(zip(solved, waves, strict=True)):
        mixtures[row, : lengths[row]] = one.mixture
        candidates[row, :, : lengths[row]] = np.stack(several)
    views = [one.prompts for one in solved]
    values = scorer.score(mixtures, candidates, lengths, sample_rate, views)[axis]
    return np.asarray(values, np.float64)


def load_networks_of_labels(
    names: Mapping[str, str | None], clap_tokenizer: str, mesh: Mesh | None = None
) -> LabelNetworks:
    """Loads the networks whose weights are named, by the names of `NETWORKS`.

    Every weight comes from a file: raises UserError for one that is missing, for tensors that are
    missing in it or do not fit, and for random weights.
    """
    for option, name in names.items():
        if name == RANDOM:
            raise UserError(f"--{option} {RANDOM}: a filter needs trained weights, name a file")
    scorers: dict[str, Scorer] = {}
    if name := names.get("clap"):
        scorers["clap"] = ClapScorer(
            load_clap(name, mesh=mesh), tokenizer_for(clap_tokenizer), mesh=mesh
        )
    if name := names.get("aesthetics"):
        scorers["aesthetics"] = AestheticsScorer(load_aesthetics(name, mesh), mesh)
    if name := names.get("imagebind"):
        scorers["imagebind"] = ImageBindScorer(load_imagebind(name, mesh=mesh), mesh)
    if name := names.get("judge"):
        judge, tokenizer = load_judge(name, mesh=mesh)
        scorers["judge"] = JudgeScorer(judge, tokenizer_for(tokenizer), mesh=mesh)
    return LabelNetworks(scorers)
