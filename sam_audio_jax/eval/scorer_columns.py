"""Scorers as columns of an evaluation: what networks say of a separated target."""

from collections.abc import Mapping, Sequence

import numpy as np

from sam_audio_jax.convert.rankers import StoredScorer
from sam_audio_jax.eval.prompting import SeparatedMixture
from sam_audio_jax.eval.recorded import Wave
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.scorer import Scorer, score_recordings


def column_of(name: str, axis: str) -> str:
    """The column of one axis of a scorer: `clap`, `judge_overall`, `aesthetics_CE`."""
    return axis if axis == name else f"{name}_{axis}"


def columns_of(scorers: Mapping[str, Scorer]) -> tuple[str, ...]:
    """The columns of all scorers, in their order."""
    return tuple(column_of(name, axis) for name, scorer in scorers.items() for axis in scorer.axes)


def score_targets(
    scorers: Mapping[str, Scorer],
    separated: Sequence[SeparatedMixture],
    targets: Sequence[Sequence[Wave]],
) -> list[list[dict[str, float]]]:
    """The columns of every version of every target, one batch for each scorer.

    `targets` has for each separated mixture equally many versions of its target. A scorer that
    needs what an item does not have gives it no column.
    """
    columns: list[list[dict[str, float]]] = [[{} for _ in versions] for versions in targets]
    views = [one.prompted.described for one in separated]
    for name, scorer in scorers.items():
        rows = [row for row, view in enumerate(views) if view.has(scorer.needs)]
        if not rows:
            continue
        recorded = [separated[row].prompted.recorded for row in rows]
        scores = score_recordings(
            scorer,
            [one.mixture for one in recorded],
            [np.stack(list(targets[row])) for row in rows],
            recorded[0].sample_rate,
            [views[row] for row in rows],
        )
        for axis, values in scores.items():
            for row, versions in zip(rows, values, strict=True):
                for version, value in enumerate(versions):
                    columns[row][version][column_of(name, axis)] = float(value)
    return columns


def in_words(scorer: Scorer) -> str:
    """What a scorer is, for a reader of the results: `5 x clap + 1 x judge of FOLDER`."""
    match scorer:
        case Ensemble():
            members = scorer.members.values()
            return " + ".join(f"{weight:g} x {in_words(one)}" for one, weight in members)
        case StoredScorer():
            return " of ".join(filter(None, (scorer.kind, scorer.source)))
    return type(scorer).__name__
