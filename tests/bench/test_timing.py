"""The table of `sam-audio bench`: the cells of a row, and runs that are counted."""

import dataclasses

import pytest

from sam_audio_jax.bench import timing
from sam_audio_jax.bench.parts import Measurement
from sam_audio_jax.bench.timing import Measured
from sam_audio_jax.cli.bench import main
from sam_audio_jax.errors import UserError


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
