"""Scorers from their published files, by name: `judge=DIR clap=FILE aesthetics=DIR imagebind=FILE`.

And what ranks candidates with them, for each kind of prompt (docs/scoring.md, "Candidates").
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from sam_audio_jax.convert.aesthetics import load_aesthetics
from sam_audio_jax.convert.clap import load_clap
from sam_audio_jax.convert.imagebind import load_imagebind
from sam_audio_jax.convert.judge import load_judge
from sam_audio_jax.convert.model_files import has_tokenizer
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.aesthetics import AestheticsScorer
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.judge_scorer import JudgeScorer
from sam_audio_jax.scorers.scorer import Scorer, SpanIoU

CLAP_TOKENIZER = "roberta-base"  # where none lies beside CLAP's file
WEIGHTS = {"clap": 5.0, "judge": 1.0}  # of the ranking by text, published


@dataclasses.dataclass(frozen=True)
class LoadedScorers:
    """What measures targets, by name, and what ranks candidates, by kind of prompt."""

    measures: Mapping[str, Scorer]
    rankers: Mapping[str, Scorer]


def _judge(path: str, mesh: Mesh | None) -> dict[str, Scorer]:
    judge, tokenizer = load_judge(path, mesh=mesh)
    return {"judge": JudgeScorer(judge, tokenizer_for(tokenizer), mesh=mesh)}


def _clap(path: str, mesh: Mesh | None) -> dict[str, Scorer]:
    """CLAP as the published metric has it, through 16-bit samples, and as it ranks."""
    network, folder = load_clap(path, mesh=mesh), pathlib.Path(path).parent
    tokenizer = tokenizer_for(str(folder) if has_tokenizer(folder) else CLAP_TOKENIZER)
    return {
        name: ClapScorer(network, tokenizer, ClapScoring(via_wav=name == "clap"), mesh)
        for name in ("clap", "clap ranker")
    }


def _aesthetics(path: str, mesh: Mesh | None) -> dict[str, Scorer]:
    return {"aesthetics": AestheticsScorer(load_aesthetics(path, mesh), mesh)}


def _imagebind(path: str, mesh: Mesh | None) -> dict[str, Scorer]:
    return {"imagebind": ImageBindScorer(load_imagebind(path, mesh=mesh), mesh)}


LOADERS: Mapping[str, Callable[[str, Mesh | None], dict[str, Scorer]]] = {
    "judge": _judge,
    "clap": _clap,
    "aesthetics": _aesthetics,
    "imagebind": _imagebind,
}


def parse_scorers(named: Sequence[str]) -> dict[str, str]:
    """`["judge=DIR", ...]` as name -> path. Raises `UserError` for another name or form."""
    paths: dict[str, str] = {}
    for one in named:
        name, _, path = one.partition("=")
        if name not in LOADERS or not path or name in paths:
            raise UserError(
                f"--scorers {one!r} must be NAME=PATH, each name once, of {', '.join(LOADERS)}"
            )
        paths[name] = path
    return paths


def load_scorers(paths: Mapping[str, str], mesh: Mesh | None = None) -> LoadedScorers:
    """Loads scorers; with a mesh their weights and batches are sharded.

    Raises `UserError` for a file that is not there or does not fit.
    """
    loaded: dict[str, Scorer] = {}
    for name, path in paths.items():
        loaded |= LOADERS[name](path, mesh)
    return LoadedScorers({name: loaded[name] for name in paths}, rankers_of(loaded))


def rankers_of(scorers: Mapping[str, Scorer]) -> dict[str, Scorer]:
    """What ranks by each kind of prompt, as published, of the scorers that are there.

    Texts are ranked by CLAP and the judge, or the one of them that is there; spans by SpanIoU;
    videos by ImageBind.
    """
    rankers: dict[str, Scorer] = {"span": SpanIoU(), "text+span": SpanIoU()}
    of_text = {
        name: (scorers.get(f"{name} ranker") or scorers[name], weight)
        for name, weight in WEIGHTS.items()
        if name in scorers
    }
    if of_text:
        rankers["text"] = Ensemble(of_text)
    if "imagebind" in scorers:
        rankers["video"] = scorers["imagebind"]
    return rankers
