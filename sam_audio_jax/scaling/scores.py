"""Separation scores of a study: `sam-audio scaling STUDY --workdir DIR --scores`.

Trainings of a study measure held-out losses. Scores are measured afterwards, of each state that a
run has kept at one of its measured steps: the mixtures of `base.eval_bench` are separated with the
averaged weights, prompted by text and by text and spans, and each state has an evaluation in
DIR/scores/NAME-STEP. One of other conditions than the study's is measured anew.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence

from sam_audio_jax import parallel
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.evaluation import evaluate_model
from sam_audio_jax.eval.prompting import SolverChoice
from sam_audio_jax.eval.scoring import Measures
from sam_audio_jax.eval.suite import Suite, fixed_suite
from sam_audio_jax.files import read_object
from sam_audio_jax.infer.scorer_files import load_scorers
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.scaling.measured import (
    CONTENTS,
    PROMPTS,
    StudyFolder,
    read_scores,
    score_conditions,
)
from sam_audio_jax.scaling.study import StudyConfig, StudyRun
from sam_audio_jax.scorers.scorer import Scorer


def measure_scores(study: StudyConfig, folder: StudyFolder, planned: Sequence[StudyRun]) -> None:
    """Scores every kept state of the runs that has no scores yet; a killed call is continued.

    Raises `UserError` where no run has kept a state that was measured, and for a judge that cannot
    be read.
    """
    ended = folder.diverged()
    kept = [
        (run, step)
        for run in planned
        if run.name not in ended
        for step in folder.workdir(run).steps()
        if step in run.measured
    ]
    if not kept:
        raise UserError(
            f"none of the {len(planned)} runs in {folder.path} has kept its state at a step that "
            "was measured: finish their training first"
        )
    conditions = score_conditions(study)
    states = [state for state in kept if not read_scores(study, folder, *state, conditions)]
    if earlier := sum(_is_of_unknown(folder, *state) for state in kept if state not in states):
        print(
            f"warning: {earlier} states were scored by a version that did not note what bench and "
            "judge hold: their scores are taken for ones of those of now",
            file=sys.stderr,
        )
    if not states:
        return
    largest = max((run.parameters, str(folder.workdir(run).path)) for run, _ in states)[1]
    mesh = parallel.inference_mesh(None, lambda: parameter_bytes(largest))
    scorers = load_scorers({"judge": study.judge}, mesh) if study.judge else {}
    for number, (run, step) in enumerate(states, 1):
        print(f"state {number} of {len(states)}: {run.name}, step {step}", file=sys.stderr)
        checkpoint = str(folder.workdir(run).checkpoint(step))
        model = SAMAudio.from_pretrained(checkpoint, mesh=mesh)
        _measure(study, folder, run, step, model, scorers)


def _is_of_unknown(folder: StudyFolder, run: StudyRun, step: int) -> bool:
    """Whether an evaluation says nothing of what its bench and judge held."""
    return CONTENTS not in read_object(folder.scores(run, step) / "results.json")["settings"]


def _measure(
    study: StudyConfig,
    folder: StudyFolder,
    run: StudyRun,
    step: int,
    model: SAMAudio,
    scorers: dict[str, Scorer],
) -> None:
    """The evaluation of one state."""
    conditions = score_conditions(study)
    evaluate_model(
        model,
        _suite(study.base.eval_bench, model.sample_rate, study.base.eval_limit or None),
        folder.scores(run, step),
        solver=SolverChoice(**dataclasses.asdict(study.base.sampler)),
        measures=Measures(scorers, sources={"judge": study.judge}),
        listen=0,
        with_baselines=False,
        loaded={"checkpoint": f"{run.name}, step {step}"}
        | {name: conditions[name] for name in ("bench", "judge", CONTENTS)},
    )


@functools.lru_cache(maxsize=1)
def _suite(bench: str, sample_rate: int, limit: int | None) -> Suite:
    """The mixtures, each with its own prompt: whether prompts are followed is not of a study."""
    suite = fixed_suite(bench, sample_rate, PROMPTS, limit)
    own = tuple(one for one in suite.separations if one.right)
    return dataclasses.replace(suite, separations=own)
