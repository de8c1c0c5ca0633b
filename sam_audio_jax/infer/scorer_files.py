"""Scorers from their published files, by name: `judge=DIR clap=FILE aesthetics=DIR imagebind=FILE`.

They measure targets; a model that names no rankers ranks its candidates with them, too
(docs/scoring.md, "Candidates").
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from sam_audio_jax.convert.aesthetics import load_aesthetics
from sam_audio_jax.convert.model_files import shipped_folder
from sam_audio_jax.convert.rankers import (
    PUBLISHED_WEIGHTS,
    StoredScorer,
    read_clap,
    read_imagebind,
    read_judge,
)
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.scorers.aesthetics import AestheticsScorer
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.scorer import Scorer


def _clap(path: str, mesh: Mesh | None) -> Scorer:
    """CLAP as the published metric has it, through 16-bit samples."""
    return read_clap(path, mesh).with_scoring(ClapScoring(via_wav=True))


def _aesthetics(path: str, mesh: Mesh | None) -> Scorer:
    return AestheticsScorer(load_aesthetics(path, mesh), mesh)


LOADERS: Mapping[str, Callable[[str, Mesh | None], Scorer]] = {
    "judge": read_judge,
    "clap": _clap,
    "aesthetics": _aesthetics,
    "imagebind": read_imagebind,
}


def parse_scorers(named: Sequence[str]) -> dict[str, str]:
    """`["judge=DIR", ...]` as name -> path. Raises `UserError` for another name or form."""
    paths: dict[str, str] = {}
    for one in named:
        name, _, path = one.partition("=")
        if name not in LOADERS or not path or name in paths:
            raise UserError(
                f"--scorers {shown(one)} must be NAME=PATH, each name once, of {', '.join(LOADERS)}"
            )
        paths[name] = path
    return paths


def load_scorers(paths: Mapping[str, str], mesh: Mesh | None = None) -> dict[str, Scorer]:
    """Loads scorers by name; with a mesh their weights and batches are sharded.

    Raises `UserError` for a file that is not there or does not fit.
    """
    return {name: LOADERS[name](path, mesh) for name, path in paths.items()}


def own_scorers(rankers: Rankers) -> dict[str, str]:
    """The judge that a model ranks with, as a metric, if the package carries it; else {}."""
    ranker = rankers.model.text
    source = ranker.source if isinstance(ranker, StoredScorer) else None
    return {"judge": source} if source and shipped_folder(source) else {}


def with_scorers(rankers: Rankers, scorers: Mapping[str, Scorer]) -> Rankers:
    """The rankers of a model; where it names none, scorers rank with the published weights.

    Texts are ranked by CLAP and the judge, or the one of them that is there, videos by ImageBind.
    """
    text, visual = rankers.model.text, rankers.model.visual
    of_text = {
        name: (_as_ranker(scorers[name]), weight)
        for name, weight in PUBLISHED_WEIGHTS.items()
        if name in scorers
    }
    if text is None and of_text:
        text = Ensemble(of_text)
    model = dataclasses.replace(rankers.model, text=text, visual=visual or scorers.get("imagebind"))
    return dataclasses.replace(rankers, model=model)


def _as_ranker(scorer: Scorer) -> Scorer:
    """CLAP without the rounding of its metric; other scorers as they are."""
    return scorer.with_scoring(ClapScoring()) if isinstance(scorer, ClapScorer) else scorer
