"""What a run of the separator evaluates, and which best metrics it refuses before it trains."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax import parallel
from sam_audio_jax.cli import main
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import in_training
from sam_audio_jax.eval.in_training import check_evaluation, separates, training_evaluation
from sam_audio_jax.infer.refine import DEFAULT
from sam_audio_jax.nn.lora import split_factors
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.train.config import CheckpointConfig, LoraConfig
from sam_audio_jax.train.objective import BASE, make_model
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir
from tests.tiny import filled
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


def test_a_run_evaluates_with_the_settings_of_the_model_that_comes_out(tmp_path, monkeypatch):
    """Its texts in one form, as in `sam-audio evaluate` of the same checkpoint."""
    prompts = dataclasses.replace(CONFIG.data.prompts, span_share=0.0)
    data = dataclasses.replace(CONFIG.data, prompts=prompts)
    cfg = dataclasses.replace(config("all"), data=data)
    mesh = parallel.make_mesh(cfg.mesh, jax.devices()[:1])
    evaluated = []
    monkeypatch.setattr(in_training, "HeldOutLoss", lambda *_: lambda *_: {})
    monkeypatch.setattr(
        in_training, "evaluate_model", lambda model, *_, **__: evaluated.append(model)
    )
    codec = filled(lambda: Codec(cfg.codec, rngs=Rngs(0)))
    evaluate = training_evaluation(Workdir(tmp_path), cfg, codec, mesh)
    assert evaluate is not None
    weights = nnx.as_pure(nnx.state(filled(lambda: make_model(cfg))))
    assert evaluate(TrainState(2, weights, weights, None, None), 2, True) == {}
    pipeline = evaluated[0].pipeline
    for one, other in zip(*map(pipeline.tokenizer, (["A Dog."], ["a dog"])), strict=True):
        np.testing.assert_array_equal(one, other)
    assert pipeline.ignored_spans == ("+", "-")
    assert (pipeline.sampler, pipeline.level_db) == (cfg.sampler, -30.0)
    adapted = dataclasses.replace(cfg, lora=LoraConfig(rank=1), init_from="base", train_text=False)
    monkeypatch.setattr(in_training, "load_extras", lambda name: {"refine": {"exponent": 0.45}})
    whole = nnx.as_pure(nnx.state(filled(lambda: make_model(adapted))))
    factors, rest = split_factors(whole)
    evaluate = training_evaluation(Workdir(tmp_path), adapted, codec, mesh, {BASE: rest})
    assert evaluate is not None
    evaluate(TrainState(2, factors, factors, None, None), 2, True)
    exponents = [model.pipeline.refinement.exponent for model in evaluated]
    assert exponents == [DEFAULT.exponent, 0.45]
