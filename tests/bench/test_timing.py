"""The table of `sam-audio bench`: the cells of a row, and runs that are counted."""

import pytest

from sam_audio_jax.bench import timing
from sam_audio_jax.bench.parts import Measurement
from sam_audio_jax.cli.bench import main


def part(run=lambda: 0.0, **more) -> Measurement:
    return Measurement(title="a part", make=lambda: (run, ()), amount=6, unit="s", **more)


def test_one_run_more_than_is_timed():
    calls = []
    assert len(timing.run_times(part(lambda: calls.append(1)), 3)) == 3
    assert len(calls) == 4


def test_cells_of_a_row():
    times = [3.0, 1.0, 2.0]
    assert (
        timing.row(part(reference_s=5.0), times, 0.75)
        == "| a part | 2.00 s (1.00 to 3.00) | 3.0 s/s | 0.8 GiB | 5.00 s | 2.50 x |"
    )
    assert timing.row(part(), times, 0.75).endswith("| 0.8 GiB | - | - |")
    assert len(timing.header().splitlines()[1].split("---")) == len(timing.COLUMNS) + 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dti"], "no part 'dti'; there are dit, dit-2,"),
        (["dit", "--runs", "0"], "argument --runs: 0 must be 1 or more"),
        (["--run", "1"], "unrecognized arguments: --run"),
    ],
)
def test_wrong_use(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
