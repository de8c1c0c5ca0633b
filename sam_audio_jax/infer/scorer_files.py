"""Scorers from their published files, by name: `judge=DIR clap=FILE aesthetics=DIR imagebind=FILE`.

They measure targets; a model that names no rankers ranks its candidates with them, too
(docs/scoring.md, "Candidates").
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from sam_audio_jax.convert.aesthetics import load_aesthetics
from sam_audio_jax.convert.judge import HUB, NAME
from sam_audio_jax.convert.model_files import shipped_folder
from sam_audio_jax.convert.rankers import (
    PUBLISHED_WEIGHTS,
    ModelRankers,
    StoredScorer,
    read_clap,
    read_imagebind,
    read_judge,
    stored_scorers,
)
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.infer.rerank import Rankers
from sam_audio_jax.scorers.aesthetics import AestheticsScorer
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.scorer import Scorer


def _aesthetics(path: str, mesh: Mesh | None) -> Scorer:
    return AestheticsScorer(load_aesthetics(path, mesh), mesh)


LOADERS: Mapping[str, Callable[[str, Mesh | None], Scorer]] = {
    "judge": read_judge,
    "clap": read_clap,
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


def load_scorers(
    paths: Mapping[str, str], mesh: Mesh | None = None, rankers: Rankers | None = None
) -> dict[str, Scorer]:
    """Loads scorers by name; with a mesh their weights and batches are sharded.

    A network of the same file by which a model ranks (`rankers`, on the same mesh) is read once for
    both. Raises `UserError` for a file that is not there or does not fit.
    """
    model = ModelRankers() if rankers is None else rankers.model
    stored = [*stored_scorers(model.text), *stored_scorers(model.visual)]
    scorers = {}
    for name, path in paths.items():
        of_model = [one for one in stored if one.kind == name and _is_same(one.source, path)]
        read = of_model[0].load if of_model else functools.partial(LOADERS[name], path, mesh)
        scorers[name] = _as_metric(read())
    return scorers


def _is_same(source: str | None, path: str) -> bool:
    """Whether a ranker's checkpoint is that of a path or name."""
    if source is None:
        return False
    names = [HUB if one == NAME else one for one in (source, path)]
    both_there = os.path.exists(source) and os.path.exists(path)
    return os.path.samefile(source, path) if both_there else names[0] == names[1]


def own_scorers(rankers: Rankers) -> dict[str, str]:
    """The judge that a model ranks with, as a metric, if the package carries it; else {}."""
    ranker = rankers.model.text
    if not isinstance(ranker, StoredScorer) or ranker.kind != "judge":
        return {}
    source = ranker.source
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


def _as_metric(scorer: Scorer) -> Scorer:
    """CLAP as the published metric has it, through 16-bit samples; other scorers as they are."""
    if isinstance(scorer, ClapScorer):
        return scorer.with_scoring(ClapScoring(via_wav=True))
    return scorer


def _as_ranker(scorer: Scorer) -> Scorer:
    """CLAP without the rounding of its metric; other scorers as they are."""
    return scorer.with_scoring(ClapScoring()) if isinstance(scorer, ClapScorer) else scorer
