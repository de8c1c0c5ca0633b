"""What a training run of a judge evaluates: its agreement with a table of ratings.

The averaged weights score every pair once, sharded over the devices of all processes. All
correlations with their intervals are in `WORKDIR/eval/STEP/agreement.json`, and the judge itself in
`WORKDIR/judge`, a folder that `load_judge` reads.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.convert.judge import save_judge
from sam_audio_jax.data.ratings import RatedExamples, RatedPair
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.agreement import Correlation, agreement
from sam_audio_jax.eval.statistics import ALL, RESAMPLES
from sam_audio_jax.files import write_json
from sam_audio_jax.scorers.judge import AXES, Judge
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.train.judge_objective import scores_of, split_judge
from sam_audio_jax.train.loop import to_devices
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir


def judge_evaluation(
    workdir: Workdir,
    config: JudgeTrainConfig,
    judge: Judge,
    examples: RatedExamples | None,
    frozen: PyTree,
    mesh: Mesh,
) -> Callable[[TrainState, int, bool], dict[str, float]]:
    """Returns what the loop calls to evaluate a state.

    Without `examples`, and where no scores are learned yet, it only saves the judge.

    The numbers are correlations of all domains and of each, on the four axes, and the mean absolute
    error on the raters' scale.
    """
    graph, *_ = split_judge(judge, config)

    def evaluate(state: TrainState, step: int, ended: bool) -> dict[str, float]:
        del ended
        save(workdir, config, graph, (frozen, state.ema))
        if examples is None or config.loss == "contrast":
            return {}
        scores = table_scores(graph, (frozen, state.ema), examples, config.batch, mesh)
        rows = _agreement(scores, examples.pairs)
        if jax.process_index() == 0:
            path = workdir.evaluation(step) / "agreement.json"
            write_json(path, {"step": step, "correlations": [row.as_dict() for row in rows]})
        return numbers_of(rows, scores, examples.pairs, config.checkpoint.best_metric)

    return evaluate


def check_best_metric(config: JudgeTrainConfig, held_out: Sequence[RatedPair] | None) -> None:
    """Raises `UserError` for a `checkpoint.best_metric` that no evaluation of the run measures.

    So a run does not find out at its first evaluation.
    """
    best = config.checkpoint.best_metric
    if not best:
        return
    if not held_out or config.loss == "contrast":
        reason = "loss=contrast learns no scores" if held_out else "data.valid_table is empty"
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated, as {reason}; "
            '--checkpoint.best-metric "" keeps the newest checkpoint'
        )
    ratings = np.stack([pair.target for pair in held_out])
    # Only the names are wanted: intervals of few resamples cost no time before the training.
    rows = _agreement(ratings, held_out, resamples=20)
    names = numbers_of(rows, ratings, held_out, best="")
    if best not in names:
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated; allowed: {', '.join(names)}"
        )


def numbers_of(
    rows: Sequence[Correlation],
    scores: Float[np.ndarray, "items axes"],
    pairs: Sequence[RatedPair],
    best: str,
) -> dict[str, float]:
    """What is logged of an evaluation: correlations, and mean absolute errors.

    `best`, which is one of their names, is NaN where it is not defined, as the correlation of the
    equal scores of a judge that has learned nothing yet.
    """
    errors = np.abs(scores - np.stack([pair.target for pair in pairs]))
    undefined = {best: math.nan} if best else {}
    return (
        undefined
        | {_metric(row): row.value for row in rows}
        | {
            f"mae/{axis}/{ALL}": float(np.nanmean(column))
            for axis, column in zip(AXES, errors.T, strict=True)
            if np.isfinite(column).any()
        }
    )


def _agreement(
    scores: Float[np.ndarray, "items axes"],
    pairs: Sequence[RatedPair],
    *,
    resamples: int = RESAMPLES,
) -> list[Correlation]:
    """The agreement of scores with the ratings of the pairs."""
    domains, systems = ([getattr(pair, name) for pair in pairs] for name in ("domain", "system"))
    ratings = np.stack([pair.target for pair in pairs])
    return agreement(scores, ratings, AXES, domains, systems, resamples=resamples)


def _metric(row: Correlation) -> str:
    """The name of a correlation in metrics.jsonl."""
    return f"{row.kind}/{row.level}/{row.axis}/{row.domain}"


def save(
    workdir: Workdir,
    config: JudgeTrainConfig,
    graph: nnx.GraphDef[Judge],
    weights: tuple[PyTree, PyTree],
) -> None:
    """Writes the judge's folder; all processes must call it."""
    if jax.process_count() > 1:
        weights = parallel.gather_to_local(weights)
    if jax.process_index() == 0:
        notes: dict[str, Any] = {
            "trained": {"table": config.data.table, "loss": config.loss},
            "normalizes_text": config.data.normalizes_text,
        }
        judge = nnx.merge(graph, *weights)
        save_judge(workdir.judge, judge, config.data.tokenizer, notes, overwrite=True)


def table_scores(
    graph: nnx.GraphDef[Judge],
    weights: tuple[PyTree, PyTree],
    examples: RatedExamples,
    batch: int,
    mesh: Mesh,
) -> Float[np.ndarray, "items axes"]:
    """The scores of every pair of a table; each process reads its share of the rows.

    `weights` are frozen ones and parameters.
    """
    index, count = parallel.process_rows(mesh)
    own, total = batch // count, len(examples.pairs)
    encoded = examples.encoded
    run, found = scores_of(graph, encoded.stage if encoded else ""), []
    for first in range(0, total, batch):
        start = first + index * own
        # Rows that are left over repeat the last pair; their scores are dropped.
        rows = [examples.example(min(n, total - 1)) for n in range(start, start + own)]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        with jax.set_mesh(mesh):
            scores = run(*weights, to_devices(arrays, mesh))
            found.append(np.asarray(jax.device_put(scores, parallel.replicated(mesh))))
    return np.concatenate(found)[:total]
