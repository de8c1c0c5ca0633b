"""What a run of the separator evaluates, and which best metrics it refuses before it trains."""

import dataclasses

import pytest

from sam_audio_jax.cli import main
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval.in_training import check_evaluation, separates
from sam_audio_jax.train.config import CheckpointConfig
from tests.train.tiny import CONFIG

SCORE = "sisdri/none/all/text"


def config(scores: str, best: str = "", **fields):
    checkpoint = CheckpointConfig(best_metric=best)
    return dataclasses.replace(
        CONFIG, eval_bench="embedded", eval_scores=scores, checkpoint=checkpoint, **fields
    )


@pytest.mark.parametrize(
    ("scores", "found"), [("all", [True, True]), ("last", [False, True]), ("none", [False, False])]
)
def test_the_mixtures_are_separated_at_the_end_of_the_run_whatever_ended_it(scores, found):
    assert [separates(config(scores), ended) for ended in (False, True)] == found


@pytest.mark.parametrize("scores", ["last", "none"])
def test_a_best_metric_that_not_every_evaluation_has_is_refused(scores):
    with pytest.raises(UserError, match=f"eval_scores={scores} leaves those out"):
        check_evaluation(config(scores, SCORE, eval_every=10))


def test_a_best_metric_of_every_evaluation_is_taken_and_one_of_none_refused():
    check_evaluation(config("last", "flow_loss/averaged/all"))
    check_evaluation(config("all", SCORE))
    with pytest.raises(UserError, match=f"did you mean {SCORE}"):
        check_evaluation(config("none", SCORE[1:]))


def test_a_study_is_refused_a_score_as_best_metric_as_its_runs_measure_none(tmp_path, capsys):
    study = tmp_path / "study.py"
    study.write_text(
        "import dataclasses\n"
        "from sam_audio_jax.scaling.study import StudyConfig\n"
        "from tests.train.tiny import CONFIG as TINY\n"
        "BASE = dataclasses.replace(TINY, eval_bench='embedded')\n"
        "CONFIG = StudyConfig(base=BASE, widths=(8,), steps=(50,))\n"
    )
    command = ["scaling", str(study), "--workdir", str(tmp_path / "out")]
    assert main([*command, "--base.checkpoint.best-metric", SCORE]) == 2
    assert "eval_scores=none leaves those out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
