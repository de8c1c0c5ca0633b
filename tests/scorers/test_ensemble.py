"""Ensembles against the reference's numbers, and as scorers of their own."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers.ensemble import Ensemble, weighted_sum
from sam_audio_jax.scorers.scorer import PromptView, Scorer, SpanIoU, best


class Fixed:
    """A scorer that returns a table."""

    axes = ("first", "second")

    def __init__(self, table, needs="text"):
        self.table, self.needs = np.asarray(table, np.float32), needs

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        return {"second": -self.table, "first": self.table}


def run(ensemble, rows=1, candidates=2):
    waves = np.zeros((rows, candidates, 1), np.float32)
    return ensemble.score(waves[:, 0], waves, np.ones(rows, int), 8_000, [PromptView()] * rows)


@pytest.mark.golden
def test_totals_and_winners(fixtures_dir):
    for path in sorted((fixtures_dir / "clap").glob("ensemble*.json")):
        weights = json.loads(path.read_text())["weights"]
        io = load_file(path.with_suffix(".safetensors"))
        tables = {name: next(t for n, t in io.items() if n.startswith(name)) for name in weights}
        np.testing.assert_allclose(weighted_sum(tables, weights), io["total"], atol=1e-6)
        np.testing.assert_array_equal(best(io["total"]), io["best"])
        members = {name: (Fixed(tables[name]), weights[name]) for name in weights}
        ensemble = Ensemble(members)
        scores = run(ensemble, *io["total"].shape)
        np.testing.assert_array_equal(best(scores["ensemble"]), io["best"])
        assert set(scores) == set(ensemble.axes) == {"ensemble", *weights}


def test_an_ensemble_is_a_scorer_and_the_first_of_equals_wins():
    ensemble = Ensemble({"a": (Fixed([[1, 2, 3]]), 2.0), "b": (Fixed([[4, 2, 0]], "nothing"), 1)})
    assert isinstance(ensemble, Scorer)
    assert ensemble.needs == "text"
    scores = run(ensemble, 1, 3)
    np.testing.assert_array_equal(scores["ensemble"], [[6, 6, 6]])
    np.testing.assert_array_equal(scores["b"], [[4, 2, 0]])
    assert best(scores["ensemble"]).tolist() == [0]
    nested = Ensemble({"both": (ensemble, 0.5), "c": (Fixed([[0, 1, 0]]), 1.0)})
    np.testing.assert_array_equal(run(nested, 1, 3)["ensemble"], [[3, 4, 3]])


def test_members_that_make_no_ensemble_are_the_users_error():
    text = Fixed([[0]])
    for members, message in (
        ({}, "at least one scorer"),
        ({"ensemble": (text, 1.0)}, "none may be called 'ensemble'"),
        ({"a": (text, float("nan"))}, "weight of a=nan must be a finite number"),
        ({"a": (text, 1.0), "b": (SpanIoU(), 1.0)}, "its scorers need spans, text"),
    ):
        with pytest.raises(UserError, match=message):
            Ensemble(members)
    with pytest.raises(UserError, match="are for a, its scores are b"):
        weighted_sum({"b": np.zeros((1, 1), np.float32)}, {"a": 1.0})
