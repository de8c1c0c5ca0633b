"""The checks of a judge: they accept one that knows the truth and none that guesses."""

import pathlib

import numpy as np
import pytest

from sam_audio_jax.data.degradations import KINDS
from sam_audio_jax.eval import judge_acceptance
from sam_audio_jax.eval.judge_acceptance import (
    SimulatedTable,
    exchanged_prompts,
    left_out_kind,
    order_of_models,
)
from sam_audio_jax.scorers.judge import AXES


@pytest.fixture(scope="module")
def table() -> SimulatedTable:
    """60 mixtures with an output of each kind and of three models, for both prompts."""
    rng = np.random.default_rng(0)
    rows, outputs = [], []
    for number in range(60):
        for output, system in enumerate([*KINDS, "true stem", "old", "middle", "new"]):
            right = bool(rng.integers(2))
            skill = {"old": 2.0, "middle": 3.0, "new": 4.0}.get(system, rng.uniform(2, 5))
            for prompt in ("own", "other"):
                good = right == (prompt == "own")
                ratings = {
                    axis: float(np.clip((skill if good else 1.5) + rng.normal(0, 0.2), 1, 5))
                    for axis in AXES
                }
                name = f"{number}/{output}"
                other = "other" if prompt == "own" else "own"
                rows.append(
                    {"id": f"{name}/{prompt}", "system": system, "ratings": ratings}
                    | {"domain": "speech" if good else "sound", "text": prompt}
                )
                kinds = [{"kind": system, "strength": 0.5}] if system in KINDS else []
                outputs.append(
                    {"id": f"{name}/{prompt}", "number": number, "prompt": prompt, "kinds": kinds}
                    | {"si_sdr": 3 * skill, "other": f"{name}/{other}"}
                )
    found = SimulatedTable(pathlib.Path(), tuple(rows), tuple(outputs))
    found.__dict__["energy_db"] = np.random.default_rng(1).normal(size=len(rows))
    return found


def guesses(table: SimulatedTable, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 1, table.truth.shape)


def test_a_judge_is_better_only_where_it_knows_more(table):
    noisy = table.truth + np.random.default_rng(3).normal(0, 0.4, table.truth.shape)
    result = left_out_kind(table, "leakage", noisy, guesses(table))
    assert result["outputs"] == 120
    assert result["better than both"]
    assert result["recall"]["judge"]["mean"] > 0.9 > abs(result["recall"]["no text"]["mean"])
    for scores in (guesses(table), guesses(table, 5)):
        assert not left_out_kind(table, "leakage", scores, guesses(table))["better than both"]
    constant = left_out_kind(table, "leakage", np.full_like(noisy, 3.0), guesses(table))
    assert constant["precision"]["judge"]["mean"] == 0
    same = left_out_kind(table, "leakage", noisy, noisy)["recall"]["judge - no text"]
    assert (same["low"], same["mean"], same["high"]) == (0, 0, 0)


def test_pcc_and_intervals_are_those_of_the_rows_of_each_resample(table):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    mixtures = np.repeat(np.arange(4), 3)
    weights = judge_acceptance._resampled(mixtures)
    assert weights[0].tolist() == [1] * 12
    assert (weights.sum(axis=1) == 12).all()
    values = judge_acceptance._pccs(x, y, weights)
    for number in (0, 1, 2):
        rows = np.repeat(np.arange(12), weights[number].astype(int))
        np.testing.assert_allclose(values[number], np.corrcoef(x[rows], y[rows])[0, 1], rtol=1e-9)


def test_the_order_of_models(table):
    right = order_of_models(table, table.truth)
    assert right is not None
    assert right["tau"]["mean"] == 1
    assert right["tau"]["n"] == 60
    assert list(right["models"]) == ["middle", "new", "old"]
    wrong = order_of_models(table, -table.truth)
    assert wrong is not None
    assert wrong["tau"]["mean"] == -1
    few = [row["system"] != "old" for row in table.rows]
    rows = tuple(row for row, keep in zip(table.rows, few, strict=True) if keep)
    outputs = tuple(one for one, keep in zip(table.outputs, few, strict=True) if keep)
    assert order_of_models(SimulatedTable(pathlib.Path(), rows, outputs), table.truth[few]) is None


def test_exchanged_prompts_are_counted_once_for_each_output_that_is_mostly_right(table):
    shares = exchanged_prompts(table, table.truth)
    assert shares["all"]["mean"] == 1
    assert shares["sound / speech"]["n"] == shares["all"]["n"]
    assert shares["all"]["n"] <= len(table.rows) / 2
    assert exchanged_prompts(table, -table.truth)["all"]["mean"] == 0
    assert abs(exchanged_prompts(table, guesses(table))["all"]["mean"] - 0.5) < 0.1
    alone = tuple(one | {"other": None} for one in table.outputs)  # own prompts alone
    assert exchanged_prompts(SimulatedTable(pathlib.Path(), table.rows, alone), table.truth) == {}
    assert (
        exchanged_prompts(table, np.ones_like(table.truth))["all"]["mean"] == 0
    )  # a tie is no fall
