"""The table of `sam-audio bench`: the cells of a row, and runs that are counted."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_audio_jax.bench import scorer_parts, timing
from sam_audio_jax.bench.parts import Measurement
from sam_audio_jax.bench.timing import Measured
from sam_audio_jax.bench.weights import random_network
from sam_audio_jax.cli.bench import main, no_original, read_options
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs


def part(run=lambda: 0.0) -> Measurement:
    return Measurement(title="a part", make=lambda: (run, ()), amount=6, unit="s")


def test_one_run_more_than_is_timed():
    calls = []
    measured = timing.measure(part(lambda: calls.append(1)), 3, "jax")
    assert len(measured.times["jax"]) == 3
    assert len(calls) == 4


def test_cells_of_a_row():
    both = Measured(
        times={"jax": [3.0, 1.0, 2.0], "torch": [5.0, 4.0, 5.0]}, peak=9.0, difference=1.2e-6
    )
    alone = [Measured(times={}, peak=peak) for peak in (0.75, 1.5)]
    ours = "| a part | 2.00 s (1.00 to 3.00) | 3.0 s/s | 0.8 GiB |"
    assert timing.row(part(), dataclasses.replace(both, peak=0.75)) == ours
    assert (
        timing.row_against(part(), both, *alone)
        == f"{ours} 5.00 s (4.00 to 5.00) | 1.5 GiB | 2.50 x | 1e-06 |"
    )
    for against, columns in ((False, 4), (True, 8)):
        first, second = timing.header(against=against).splitlines()
        assert first.count("|") == second.count("|") == columns + 1


def test_a_part_without_pytorch():
    with pytest.raises(UserError, match="PyTorch has no part 'a part'"):
        timing.measure(part(), 1, "torch")


def test_sides_of_two_processes_are_one_row():
    ours = Measured(times={"jax": [2.0]}, peak=0.75, result=[1.0, -4.0])
    theirs = Measured(times={"torch": [4.0]}, peak=1.5, result=[1.0, -4.004])
    both = timing.joined(ours, theirs)
    assert (
        timing.row_against(part(), both, ours, theirs)
        == "| a part | 2.00 s (2.00 to 2.00) | 3.0 s/s | 0.8 GiB | 4.00 s (4.00 to 4.00) | 1.5 GiB "
        "| 2.00 x | 1e-03 |"
    )
    with pytest.raises(UserError, match=r"results of 2 and 3 numbers cannot be compared"):
        timing.joined(ours, dataclasses.replace(theirs, result=[1.0, 2.0, 3.0]))


def test_a_scorer_whose_original_is_not_installed_has_a_row_of_its_own(monkeypatch):
    monkeypatch.setitem(scorer_parts.PACKAGES, "clap", ("json", "no_such_package"))
    assert no_original(scorer_parts.SCORERS["clap"]) == "needs no_such_package"
    assert no_original(scorer_parts.SCORERS["span-iou"]) == "none: no network"
    monkeypatch.setitem(scorer_parts.PACKAGES, "clap", ("json",))
    assert not no_original(scorer_parts.SCORERS["clap"])
    row = timing.row_without(part(), Measured(times={"jax": [12.0]}, peak=1.0), "needs torch")
    assert (
        row == "| a part | 12.00 s (12.00 to 12.00) | 0.5 s/s | 1.0 GiB | needs torch | - | - | - |"
    )
    assert row.count("|") == timing.header(against=True).splitlines()[0].count("|")


def test_all_scorers_by_one_name():
    options = read_options(["scorers", "dit", "--clock", "cpu"])
    assert options.names == [*scorer_parts.SCORERS, "dit"]
    assert "| what | CPU time |" in timing.header(against=False, clock="cpu")


def test_a_measured_scorer_gives_its_result():
    forward = scorer_parts.ScorerForward(
        make=lambda: nnx.Linear(3, 2, rngs=Rngs(0)),
        program=nnx.Linear.__call__,
        inputs=lambda: (np.ones((1, 3), np.float32),),
        original="clap",
    )
    measured = timing.measure(dataclasses.replace(part(), make=forward), 1, "jax", "cpu")
    network = random_network(forward.make)
    assert measured.result == pytest.approx(np.asarray(network(jnp.ones((1, 3)))).ravel(), 1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dti"], "no part 'dti'; there are dit, dit-2,"),
        (["dit", "--runs", "0"], "argument --runs: 0 must be 1 or more"),
        (["--run", "1"], "unrecognized arguments: --run"),
        (["train-2", "--against", "torch"], "train-2 has no part in PyTorch; there are dit, dit-2"),
    ],
)
def test_wrong_use(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
