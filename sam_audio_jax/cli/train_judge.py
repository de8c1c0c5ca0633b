"""Trains a judge on ratings: `sam-audio train-judge judge_tiny --workdir runs/judge`.

`--data.table` names the ratings (docs/scoring.md, "Training a judge"), `--data.valid-table` those
of the evaluations. The judge with averaged weights is in WORKDIR/judge. Several hosts and exit
status are as for `sam-audio train`.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, PyTree

from sam_audio_jax import config, distributed, parallel
from sam_audio_jax.allocator import keep_freed_memory
from sam_audio_jax.cli.command import command
from sam_audio_jax.data.ratings import (
    RatedExamples,
    RatedPair,
    check_sounds,
    check_tokenizer,
    load_ratings,
    rated_batches,
    rating_statistics,
)
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.judge_in_training import check_best_metric, judge_evaluation
from sam_audio_jax.nn.fingerprint import fingerprint_of, same_weights
from sam_audio_jax.scorers.judge import AXES
from sam_audio_jax.train import loop
from sam_audio_jax.train.config import JudgeTrainConfig
from sam_audio_jax.train.judge_cache import open_judge_cache
from sam_audio_jax.train.judge_objective import make_judge_training
from sam_audio_jax.train.judge_start import initial_judge, with_tokenizer
from sam_audio_jax.workdir import Workdir

KEPT = "frozen"  # what checkpoints keep: the fingerprint of the frozen weights


@command
def main(argv: list[str]) -> None:
    """Trains in one workdir, from its newest checkpoint on."""
    path, profile, cfg = config.run_options(
        argv, __doc__, command="train-judge", kind=JudgeTrainConfig
    )
    if not cfg.data.table:
        raise UserError("data.table is empty: name a table of ratings with --data.table")
    cfg = with_tokenizer(cfg)
    pairs = load_ratings(cfg.data.table, cfg.data)
    held_out = load_ratings(cfg.data.valid_table, cfg.data) if cfg.data.valid_table else None
    check_best_metric(cfg, held_out)
    if cfg.loss == "contrast":  # reads neither ratings nor mixtures
        pairs = [dataclasses.replace(pair, mixture=pair.separated) for pair in pairs]
    mean, std = scale_of(cfg, pairs)
    check_tokenizer(cfg.data)
    check_sounds(pairs + (held_out or []), cfg.data, cfg.judge)
    keep_freed_memory()
    distributed.initialize()
    workdir = Workdir.open(path, cfg)
    mesh = parallel.make_mesh(cfg.mesh)
    judge = initial_judge(cfg, mean, std, mesh)
    encoded = open_judge_cache(cfg, judge, pairs + (held_out or []))
    state, step, frozen = make_judge_training(cfg, judge, mesh, encoded.stage if encoded else "")
    examples = RatedExamples(cfg.data, pairs, cfg.judge, encoded)
    kept = kept_frozen(workdir, cfg, frozen)
    index, count = parallel.process_rows(mesh)
    batches = rated_batches(examples, cfg.batch, index=index, count=count)
    valid = RatedExamples(cfg.data, held_out, cfg.judge, encoded) if held_out else None
    loop.train_and_evaluate(
        cfg,
        workdir=workdir.path,
        state=state,
        step=step,
        batches=batches,
        mesh=mesh,
        frames_per_step=2 * cfg.batch * examples.frames,
        frozen=frozen,
        evaluate=judge_evaluation(workdir, cfg, judge, valid, frozen, mesh),
        profile=profile,
        kept=kept,
    )


def scale_of(
    cfg: JudgeTrainConfig, pairs: list[RatedPair]
) -> tuple[Float[np.ndarray, " axes"], Float[np.ndarray, " axes"]]:
    """Mean and spread of the ratings by which the judge is scaled: 0 and 1 where none are needed.

    That is without ratings, and where it keeps those of the judge from which it starts; then the
    table need not rate every axis. Raises as `rating_statistics`.
    """
    keeps = cfg.init_from and not cfg.rescale
    if cfg.loss == "contrast" or keeps:
        return np.zeros(len(AXES)), np.ones(len(AXES))
    return rating_statistics(pairs)


def kept_frozen(workdir: Workdir, cfg: JudgeTrainConfig, frozen: PyTree) -> dict[str, str]:
    """What checkpoints keep of the frozen weights, which they do not have; {} without any.

    Raises `UserError` where the run began beside others: its weights would not fit these.
    """
    starts = ("init_from", "encoders_from", "codec_from", "vectors_from")
    named = [f"{name}={value}" for name in starts if (value := getattr(cfg, name))]
    if not named or not jax.tree.leaves(frozen):
        return {}
    weights = fingerprint_of(frozen, rounded=True)
    began = workdir.kept_in_checkpoint(KEPT)
    if began is not None and not same_weights(began, weights):
        raise UserError(
            f"{workdir.path} trains a judge beside frozen weights {began}; {' and '.join(named)} "
            f"has the weights {weights} now"
        )
    return {KEPT: weights}
